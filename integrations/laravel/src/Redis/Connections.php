<?php

namespace Sluicegate\Laravel\Redis;

use Illuminate\Contracts\Foundation\Application;
use Illuminate\Redis\RedisManager;
use InvalidArgumentException;
use Predis\Command\RawCommand;
use Redis;
use Sluicegate\Laravel\Exceptions\RedisUnavailable;
use Throwable;

/**
 * Connections to the Redis that the application names, but the package's own: without the application's key prefix,
 * which the gateway knows nothing of, without its serializer and compression, and with a read time-out that outlasts a
 * blocking take.
 */
class Connections
{
    /** For what is answered at once. */
    public const PLAIN = 'sluicegate';

    /** For takes that wait: whatever shares a connection with them would wait too. */
    public const BLOCKING = 'sluicegate-blocking';

    /** What changes keys or values on their way, or lets two connections be one. */
    private const NOT_TAKEN_OVER = [
        'prefix', 'serializer', 'compression', 'compression_level', 'persistent', 'persistent_id', 'name',
    ];

    private ?RedisManager $manager = null;

    /**
     * @param array<string, mixed> $settings of config/sluicegate.php
     */
    public function __construct(private Application $app, private array $settings)
    {
    }

    /**
     * Sends one command, as it is written here. Nil is null; but nil instead of a list, which is what a blocking
     * command answers when its time is over, is an empty list to phpredis.
     *
     * @param array<int, string|int> $command
     *
     * @throws RedisUnavailable it may have been done
     */
    public function call(array $command, string $connection = self::PLAIN): mixed
    {
        $arguments = array_map('strval', array_values($command));
        try {
            $client = $this->manager()->connection($connection)->client();
            if (! $client instanceof Redis) {
                return $client->executeCommand(RawCommand::create(...$arguments));
            }
            $client->clearLastError();
            $answer = $client->rawCommand(...$arguments);
            $error = $client->getLastError();
        } catch (InvalidArgumentException $exception) {
            throw $exception;
        } catch (Throwable $exception) {
            // An answer may still be on its way: it would be taken for that of the next command.
            $this->forget($connection);
            throw new RedisUnavailable("Redis, {$arguments[0]}: {$exception->getMessage()}", 0, $exception);
        }
        // An error that was answered is not thrown by phpredis.
        if ($answer === false && $error !== null) {
            throw new RedisUnavailable("Redis refuses {$arguments[0]}: {$error}");
        }

        return $answer === false ? null : $answer;
    }

    /**
     * Runs a script: all of it at once.
     *
     * @param array<int, string>     $keys
     * @param array<int, string|int> $arguments
     *
     * @throws RedisUnavailable it may have been done
     */
    public function script(string $script, array $keys, array $arguments = []): mixed
    {
        return $this->call(['EVAL', $script, count($keys), ...$keys, ...$arguments]);
    }

    /** Closes a connection; the next call makes another one. */
    public function forget(string $connection): void
    {
        if ($this->manager === null) {
            return;
        }
        try {
            $this->manager->connection($connection)->client()->close();
        } catch (Throwable) {
            // It is gone, or was never made.
        }
        $this->manager->purge($connection);
    }

    private function manager(): RedisManager
    {
        return $this->manager ??= $this->build();
    }

    private function build(): RedisManager
    {
        $all = $this->app->make('config')->get('database.redis', []);
        $name = $this->settings['redis']['connection'];
        if (isset($all['clusters'][$name])) {
            throw new InvalidArgumentException(
                "sluicegate.redis.connection: `{$name}` is a Redis Cluster, which this package does not speak to;"
                . ' name a connection to one server'
            );
        }
        if (! is_array($all[$name] ?? null)) {
            throw new InvalidArgumentException(
                "sluicegate.redis.connection: config/database.php has no redis connection `{$name}`"
            );
        }
        $drop = fn (array $settings): array => array_diff_key($settings, array_flip(self::NOT_TAKEN_OVER));
        $options = $drop($all['options'] ?? []);
        $server = $drop($all[$name]);
        if (isset($server['options'])) {
            $server['options'] = $drop($server['options']);
        }
        $patient = function (string $name, float $silence) use ($server): array {
            // phpredis has the one, Predis the other; without either PHP's default_socket_timeout ends a read. The name
            // is for whoever looks at CLIENT LIST.
            $own = ['read_timeout' => $silence, 'read_write_timeout' => $silence, 'name' => $name];

            return array_merge($server, $own);
        };
        $timeout = (float) $this->settings['redis']['timeout'];
        $block = (float) $this->settings['listener']['block'];

        return new RedisManager($this->app, $all['client'] ?? 'phpredis', [
            'options' => $options,
            self::PLAIN => $patient(self::PLAIN, $timeout),
            self::BLOCKING => $patient(self::BLOCKING, $block + $timeout),
        ]);
    }
}
