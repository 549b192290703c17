<?php

namespace Sluicegate\Laravel;

use Illuminate\Contracts\Foundation\Application;
use Illuminate\Support\ServiceProvider;
use Sluicegate\Laravel\Commands\MqttCommandService;
use Sluicegate\Laravel\Console\ListenCommand;
use Sluicegate\Laravel\Console\SyncTokensCommand;
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

    public function register(): void
    {
        $this->mergeConfigFrom(self::CONFIG, 'sluicegate');
        foreach ([Connections::class, Keys::class, Tables::class, MqttCommandService::class, MachineTokens::class] as $service) {
            $this->app->singleton($service);
        }
        foreach ([Connections::class, Keys::class, Listener::class, Tables::class, MqttCommandService::class, MachineTokens::class] as $service) {
            $this->app->when($service)->needs('$settings')->give(fn (Application $app) => $app->make('config')->get('sluicegate'));
        }
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
