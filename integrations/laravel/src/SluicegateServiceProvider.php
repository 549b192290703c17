<?php

namespace Sluicegate\Laravel;

use Illuminate\Contracts\Foundation\Application;
use Illuminate\Support\ServiceProvider;
use Sluicegate\Laravel\Commands\MqttCommandService;
use Sluicegate\Laravel\Console\ListenCommand;
use Sluicegate\Laravel\Console\SyncTokensCommand;
use Sluicegate\Laravel\Listener\Batch;
use Sluicegate\Laravel\Listener\Listener;
use Sluicegate\Laravel\Redis\Connections;
use Sluicegate\Laravel\Redis\Keys;
use Sluicegate\Laravel\Support\Tables;
use Sluicegate\Laravel\Tokens\MachineTokens;

class SluicegateServiceProvider extends ServiceProvider
{
    /** What the package offers to `vendor:publish --tag=…`. */
    private const CONFIG = __DIR__ . '/../config/sluicegate.php';
    private const MIGRATIONS = __DIR__ . '/../database/migrations';

    /** What there is one of, and what is given the settings. */
    private const SERVICES = [
        Connections::class, Keys::class, Tables::class, MqttCommandService::class, MachineTokens::class,
    ];

    public function register(): void
    {
        $this->mergeConfigFrom(self::CONFIG, 'sluicegate');
        $settings = fn (Application $app): array => $app->make('config')->get('sluicegate');
        foreach (self::SERVICES as $service) {
            $this->app->singleton($service);
            $this->app->when($service)->needs('$settings')->give($settings);
        }
        $this->app->when([Listener::class, Batch::class])->needs('$settings')->give($settings);
    }

    public function boot(): void
    {
        if (! $this->app->runningInConsole()) {
            return;
        }
        $this->commands([ListenCommand::class, SyncTokensCommand::class]);
        $this->publishes([self::CONFIG => $this->app->configPath('sluicegate.php')], 'sluicegate-config');
        $this->publishes([self::MIGRATIONS => $this->app->databasePath('migrations')], 'sluicegate-migrations');
    }
}
