<?php

namespace Sluicegate\Laravel\Tests;

use Illuminate\Contracts\Console\Kernel;
use Illuminate\Foundation\Application;
use Illuminate\Support\Facades\Facade;
use PHPUnit\Framework\TestCase as Base;
use Redis;
use Sluicegate\Laravel\Tests\Support\Child;
use Sluicegate\Laravel\Tests\Support\Stage;
use Sluicegate\Laravel\Tests\Support\Wait;

/** A test with a Laravel application of its own, on the stage's servers; Redis and the database are empty before each. */
abstract class TestCase extends Base
{
    protected const DATABASE = 'laravel';

    protected Stage $stage;

    protected Redis $redis;

    protected Application $app;

    private string $application;

    /** @var array<int, Child> */
    private array $children = [];

    private int $listeners = 0;

    protected function setUp(): void
    {
        parent::setUp();
        $this->stage = Stage::one();
        $this->stage->stand();
        $this->redis = $this->stage->redis();
        $this->redis->flushAll();
        // A test may have lowered it, and the server is one for all.
        $this->redis->config('SET', 'maxmemory', '0');
        $this->stage->emptyDatabase(self::DATABASE);
        $this->application = $this->layOut();
        $this->app = $this->boot();
        $this->prepareDatabase();
        $this->artisan('vendor:publish', ['--tag' => 'sluicegate-migrations']);
        $this->artisan('migrate', ['--force' => true]);
    }

    protected function tearDown(): void
    {
        foreach ($this->children as $child) {
            $child->kill();
        }
        $this->app->flush();
        Facade::clearResolvedInstances();
        parent::tearDown();
    }

    /** What is in the database before the package's migrations: nothing, but a test says otherwise. */
    protected function prepareDatabase(): void
    {
    }

    /**
     * @return array<string, string> the application's environment
     */
    protected function environment(): array
    {
        return [
            'REDIS_PORT' => (string) $this->stage->redisPort,
            'DB_SOCKET' => $this->stage->databaseSocket,
            'DB_DATABASE' => self::DATABASE,
            'APP_ENV' => 'testing',
        ];
    }

    /** @param array<string, mixed> $parameters */
    protected function artisan(string $command, array $parameters = []): string
    {
        $kernel = $this->app->make(Kernel::class);
        $status = $kernel->call($command, $parameters);
        $output = $kernel->output();
        self::assertSame(0, $status, "{$command}: {$output}");

        return $output;
    }

    /**
     * Starts `php artisan mqtt:listen`, and waits until it listens.
     *
     * @param array<int, string>    $options
     * @param array<string, string> $environment
     * @param array<int, string>    $php         options of PHP itself
     */
    protected function listen(array $options = [], array $environment = [], array $php = []): Child
    {
        $log = "{$this->application}/listen-" . ++$this->listeners . '.log';
        $child = new Child(
            [PHP_BINARY, ...$php, 'artisan', 'mqtt:listen', ...$options],
            $log,
            $environment + $this->environment(),
            $this->application
        );
        $this->children[] = $child;
        Wait::until('mqtt:listen listens', fn () => str_contains($child->log(), 'Listening as') || ! $child->runs());

        return $child;
    }

    protected function keep(Child $child): Child
    {
        return $this->children[] = $child;
    }

    /** What the application logged. */
    protected function log(): string
    {
        $file = "{$this->application}/storage/logs/laravel.log";

        return is_file($file) ? file_get_contents($file) : '';
    }

    protected function application(): string
    {
        return $this->application;
    }

    /** An entry of the list, as the gateway writes it. */
    protected static function entry(string $type, string $serialNo, string $payload, string $at = '2026-04-14T09:00:00+08:00'): string
    {
        $serialNo = json_encode($serialNo, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES);

        return "{\"type\":\"{$type}\",\"serial_no\":{$serialNo},\"payload\":{$payload},\"received_at\":\"{$at}\"}";
    }

    /** The application's folder, with the package among what Composer installed: Laravel finds it by itself. */
    private function layOut(): string
    {
        $folder = $this->stage->folder . '/application-' . bin2hex(random_bytes(4));
        $from = __DIR__ . '/application';
        foreach (['bootstrap/cache', 'config', 'database/migrations', 'vendor/composer', 'storage/logs', 'storage/framework/cache', 'storage/framework/views'] as $part) {
            mkdir("{$folder}/{$part}", 0700, true);
        }
        foreach (['artisan', 'bootstrap/app.php', ...array_map(fn ($file) => 'config/' . basename($file), glob("{$from}/config/*.php"))] as $file) {
            copy("{$from}/{$file}", "{$folder}/{$file}");
        }
        $package = json_decode(file_get_contents(__DIR__ . '/../composer.json'), true);
        file_put_contents("{$folder}/vendor/composer/installed.json", json_encode(['packages' => [$package]]));
        file_put_contents("{$folder}/composer.json", '{"autoload":{"psr-4":{"App\\\\":"app/"}}}');

        return $folder;
    }

    private function boot(): Application
    {
        foreach ($this->environment() as $name => $value) {
            putenv("{$name}={$value}");
            [$_ENV[$name], $_SERVER[$name]] = [$value, $value];
        }
        $app = require "{$this->application}/bootstrap/app.php";
        $app->make(Kernel::class)->bootstrap();

        return $app;
    }
}
