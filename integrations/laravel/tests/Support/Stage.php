<?php

namespace Sluicegate\Laravel\Tests\Support;

use PDO;
use PDOException;
use Redis;
use RedisException;
use RuntimeException;

/**
 * The real servers, and the real gateway between them: started once for all tests, each in a folder and on a port of its own, and
 * ended with this process.
 */
final class Stage
{
    private static ?self $one = null;

    public string $folder;

    public int $redisPort;

    public int $mqttPort;

    public string $databaseSocket;

    private Child $redis;

    private Child $database;

    private Child $mosquitto;

    private Child $gateway;

    public static function one(): self
    {
        return self::$one ??= new self();
    }

    private function __construct()
    {
        $this->folder = sys_get_temp_dir() . '/sluicegate-laravel-' . bin2hex(random_bytes(6));
        mkdir($this->folder, 0700);
        register_shutdown_function(fn () => $this->end());
        $this->redisPort = self::freePort();
        $this->mqttPort = self::freePort();
        $this->databaseSocket = "{$this->folder}/mariadb.sock";
        $this->installDatabase();
        $this->startRedis();
        $this->startDatabase();
        $this->startMosquitto();
        $this->startGateway();
    }

    /** Below those that the system gives to connections, which come and go, and above those of the tests in Rust, which run beside these. */
    public static function freePort(): int
    {
        static $given = [];
        foreach (self::shuffled(range(32000, 32767)) as $port) {
            $socket = in_array($port, $given, true) ? false : @stream_socket_server("tcp://127.0.0.1:{$port}");
            if ($socket !== false) {
                fclose($socket);

                return $given[] = $port;
            }
        }
        throw new RuntimeException('no port is free from 32000 to 32767');
    }

    /**
     * @param  int[]  $numbers
     * @return int[]
     */
    private static function shuffled(array $numbers): array
    {
        shuffle($numbers);

        return $numbers;
    }

    /** Starts again what a test that failed left killed. */
    public function stand(): void
    {
        if (! $this->redis->runs()) {
            $this->startRedis();
        }
        if (! $this->database->runs()) {
            $this->startDatabase();
        }
    }

    public function startRedis(): void
    {
        $arguments = ['--port', (string) $this->redisPort, '--bind', '127.0.0.1', '--dir', $this->folder, '--save', ''];
        $this->redis = new Child(
            ['redis-server', ...$arguments, '--appendonly', 'yes', '--appendfsync', 'always'],
            "{$this->folder}/redis.log"
        );
        Wait::until('Redis listens', fn () => $this->redisOrNull());
    }

    public function killRedis(): void
    {
        $this->redis->kill();
    }

    public function startDatabase(): void
    {
        $this->database = new Child([
            self::program('mariadbd', '/usr/sbin/mariadbd'), '--no-defaults', "--datadir={$this->folder}/mariadb",
            "--socket={$this->databaseSocket}", '--skip-networking', "--pid-file={$this->folder}/mariadb.pid",
            '--innodb-buffer-pool-size=32M', ...self::asRoot(),
        ], "{$this->folder}/mariadb.log");
        Wait::until('MariaDB listens', fn () => $this->databaseOrNull(), 120.0, fn () => $this->database->log());
    }

    public function killDatabase(): void
    {
        $this->database->kill();
    }

    /** A connection without Laravel: what is looked at is what the gateway sees. */
    public function redis(): Redis
    {
        return Wait::until('Redis answers', fn () => $this->redisOrNull());
    }

    /** Makes a database anew, empty. */
    public function emptyDatabase(string $name): void
    {
        $connection = Wait::until('MariaDB answers', fn () => $this->databaseOrNull());
        $connection->exec("DROP DATABASE IF EXISTS `{$name}`");
        $connection->exec("CREATE DATABASE `{$name}` CHARACTER SET utf8mb4");
    }

    /** As a machine would: with QoS 1, acknowledged by the broker. */
    public function publish(string $topic, string $payload): void
    {
        $child = new Child(
            ['mosquitto_pub', '-h', '127.0.0.1', '-p', (string) $this->mqttPort, '-q', '1', '-t', $topic, '-m', $payload],
            "{$this->folder}/publish.log"
        );
        $child->ended();
    }

    /** Many, on one connection: a payload a line. */
    public function publishLines(string $topic, string $file): Child
    {
        $command = 'exec mosquitto_pub -h 127.0.0.1 -p "$1" -q 1 -t "$2" -l < "$3"';

        return new Child(
            ['sh', '-c', $command, 'sh', (string) $this->mqttPort, $topic, $file],
            "{$this->folder}/publish.log"
        );
    }

    /** A machine that listens for its commands: what reaches it stands in the log, a message a line. */
    public function machine(string $serialNo): Child
    {
        $log = "{$this->folder}/machine-{$serialNo}-" . bin2hex(random_bytes(3)) . '.log';
        // -d says when the broker has its subscription.
        $child = new Child(['stdbuf', '-oL', 'mosquitto_sub', '-d', '-h', '127.0.0.1', '-p', (string) $this->mqttPort, '-q', '1',
            '-t', "machine/{$serialNo}/command"], $log);
        Wait::until('the machine is subscribed', fn () => str_contains($child->log(), 'SUBACK'));

        return $child;
    }

    private function installDatabase(): void
    {
        $install = new Child([
            'mariadb-install-db', '--no-defaults', "--datadir={$this->folder}/mariadb", '--skip-test-db',
            '--auth-root-authentication-method=normal', ...self::asRoot(),
        ], "{$this->folder}/install.log");
        $install->ended();
        if (! is_dir("{$this->folder}/mariadb/mysql")) {
            throw new RuntimeException("mariadb-install-db failed:\n" . $install->log());
        }
    }

    private function startMosquitto(): void
    {
        $settings = "listener {$this->mqttPort} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
            . "max_inflight_messages 0\nuser root\n";
        file_put_contents("{$this->folder}/mosquitto.conf", $settings);
        $this->mosquitto = new Child(
            [self::program('mosquitto', '/usr/sbin/mosquitto'), '-c', "{$this->folder}/mosquitto.conf"],
            "{$this->folder}/mosquitto.log"
        );
        Wait::until('mosquitto listens', fn () => @fsockopen('127.0.0.1', $this->mqttPort));
    }

    private function startGateway(): void
    {
        $root = dirname(__DIR__, 4);
        $binary = getenv('SLUICEGATE_BIN') ?: "{$root}/target/debug/sluicegate";
        $plugins = getenv('SLUICEGATE_PLUGINS') ?: "{$root}/config/plugins";
        foreach ([$binary => 'cargo build -p sluicegate', "{$plugins}/heartbeat.wasm" => 'cargo xtask plugins'] as $file => $by) {
            if (! is_file($file)) {
                throw new RuntimeException("{$file} is missing; `{$by}` builds it, `cargo xtask test` does all");
            }
        }
        $settings = "[mqtt]\nurl = \"mqtt://127.0.0.1:{$this->mqttPort}\"\n"
            . "[redis]\nurl = \"redis://127.0.0.1:{$this->redisPort}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
        foreach (['heartbeat', 'error', 'transaction', 'command-validation'] as $plugin) {
            $settings .= "[plugins.{$plugin}]\npath = \"{$plugins}/{$plugin}.wasm\"\n";
        }
        foreach (['heartbeat', 'error', 'transaction'] as $route) {
            $settings .= "[[routes]]\nname = \"{$route}\"\ntopic = \"machine/{serial_no}/{$route}\"\nhandlers = [\"{$route}\"]\n";
        }
        mkdir("{$this->folder}/gateway");
        file_put_contents("{$this->folder}/gateway/sluicegate.toml", $settings);
        $this->gateway = new Child(
            [$binary, 'run', '--config', 'sluicegate.toml'],
            "{$this->folder}/gateway/log",
            ['NO_COLOR' => '1', 'RUST_LOG' => 'info'],
            "{$this->folder}/gateway"
        );
        Wait::until('the gateway is ready', function (): bool {
            if (! $this->gateway->runs()) {
                throw new RuntimeException("the gateway ended:\n" . $this->gateway->log());
            }
            if (! preg_match('/admin listening.*:(\d+)/', $this->gateway->log(), $found)) {
                return false;
            }
            $ready = @file_get_contents("http://127.0.0.1:{$found[1]}/readyz");

            return $ready !== false && (json_decode($ready, true)['ready'] ?? false);
            // It compiles its plugins first, at the lowest priority.
        }, 400.0, fn () => $this->gateway->log());
    }

    /** @return array<int, string> */
    private static function asRoot(): array
    {
        return posix_getuid() === 0 ? ['--user=root'] : [];
    }

    private static function program(string $name, string $path): string
    {
        return is_file($path) ? $path : $name;
    }

    private function redisOrNull(): ?Redis
    {
        try {
            $redis = new Redis();
            $redis->connect('127.0.0.1', $this->redisPort, 2.0);
            $redis->dbSize();

            return $redis;
        } catch (RedisException) {
            return null;
        }
    }

    private function databaseOrNull(): ?PDO
    {
        try {
            return new PDO("mysql:unix_socket={$this->databaseSocket}", 'root', '');
        } catch (PDOException) {
            return null;
        }
    }

    private function end(): void
    {
        foreach (['gateway', 'mosquitto', 'database', 'redis'] as $server) {
            if (isset($this->$server)) {
                $this->$server->kill();
            }
        }
        if (getenv('SLUICEGATE_KEEP') === false) {
            exec('rm -rf ' . escapeshellarg($this->folder));
        }
    }
}
