<?php

namespace Sluicegate\Laravel\Tokens;

use Carbon\CarbonImmutable;
use InvalidArgumentException;
use Sluicegate\Laravel\Exceptions\InvalidCommand;
use Sluicegate\Laravel\Exceptions\RedisUnavailable;
use Sluicegate\Laravel\Redis\Connections;
use Sluicegate\Laravel\Redis\Keys;
use Sluicegate\Laravel\Support\SerialNo;
use Sluicegate\Laravel\Support\Tables;
use Throwable;

/**
 * Machines' tokens: with them they log in to the broker. Only a token's SHA-256 is kept, in the machine's row and in
 * Redis, where the broker reads it; the token itself is shown once. It is random and long, so that a hash without salt
 * is enough.
 */
class MachineTokens
{
    public const STRING = 'string';

    public const HASH = 'hash';

    private const BYTES = 32;

    /** Rows in one look of sync. */
    private const PAGE = 500;

    /** In one step: at no moment is there no key. KEYS: key; ARGV: format, hash. */
    private const WRITE = <<<'LUA'
        redis.call('DEL', KEYS[1])
        if ARGV[1] == 'string' then
          redis.call('SET', KEYS[1], ARGV[2])
        else
          redis.call('HSET', KEYS[1], 'password_hash', ARGV[2], 'is_superuser', '0')
        end
        return 1
        LUA;

    /**
     * @param array<string, mixed> $settings of config/sluicegate.php
     */
    public function __construct(
        private Connections $redis,
        private Keys $keys,
        private Tables $tables,
        private array $settings
    ) {
    }

    /**
     * Gives a machine a new token; the one that it had is void at once. The machine must have a row.
     *
     * @throws InvalidCommand   the serial number cannot be a user name, or there is no such machine
     * @throws RedisUnavailable no token was issued; whether the old one still holds is unknown, so try again
     */
    public function issue(string $serialNo): string
    {
        $this->check($serialNo);
        $token = bin2hex(random_bytes(self::BYTES));
        $hash = hash('sha256', $token);
        $this->change($serialNo, $hash, fn () => $this->write($serialNo, $hash));

        return $token;
    }

    /**
     * A machine has no token any more. Redis first: it is the broker's door. A connection that the machine has stays
     * until the broker ends it.
     *
     * @throws InvalidCommand   there is no such machine
     * @throws RedisUnavailable it may still have it
     */
    public function revoke(string $serialNo): void
    {
        $this->redis->call(['DEL', $this->keys->token($serialNo)]);
        // Again behind the row's lock: one that was being issued meanwhile is void, too.
        $this->change($serialNo, null, fn () => $this->redis->call(['DEL', $this->keys->token($serialNo)]));
    }

    /**
     * Writes all tokens to Redis anew, as the rows have them: after Redis lost its data, or where the format changed.
     *
     * @return array{int, array<string, string>} how many were written, and which were not, with the reason
     *
     * @throws RedisUnavailable
     */
    public function sync(): array
    {
        [$id, $serial] = [$this->tables->must('machines', 'id'), $this->tables->must('machines', 'serial_no')];
        $column = $this->tables->must('machines', 'api_token_hash');
        [$written, $refused] = [0, []];
        $this->tables->query('machines')->whereNotNull($column)->chunkById(
            self::PAGE,
            function ($rows) use ($serial, $column, &$written, &$refused): void {
                foreach ($rows as $row) {
                    try {
                        $this->check((string) $row->$serial);
                        $this->write($row->$serial, $this->hashOf((string) $row->$column));
                        $written++;
                    } catch (InvalidCommand | InvalidArgumentException $exception) {
                        $refused[(string) $row->$serial] = $exception->getMessage();
                    }
                }
            },
            $id
        );

        return [$written, $refused];
    }

    /**
     * The row and Redis together: the row is locked meanwhile, so that two changes of one machine are one after the
     * other in both.
     *
     * @throws InvalidCommand
     * @throws RedisUnavailable
     */
    private function change(string $serialNo, ?string $hash, callable $write): void
    {
        $before = false;
        try {
            $this->tables->connection()->transaction(function () use ($serialNo, $hash, $write, &$before): void {
                $column = $this->tables->must('machines', 'api_token_hash');
                $serial = $this->tables->must('machines', 'serial_no');
                $machine = fn () => $this->tables->query('machines')->where($serial, $serialNo);
                $row = $machine()->lockForUpdate()->first([$column, $serial]);
                if ($row === null) {
                    throw new InvalidCommand("no machine has the serial number `{$serialNo}`");
                }
                // A collation that heeds no case finds another machine's row; to the broker they are two.
                if ((string) $row->$serial !== $serialNo) {
                    throw new InvalidCommand(
                        "the database takes `{$serialNo}` for the machine `{$row->$serial}`, and the broker does not"
                    );
                }
                $now = $this->tables->time(CarbonImmutable::now());
                $machine()->update($this->tables->row('machines', [
                    'api_token_hash' => $hash,
                    'api_token_issued_at' => $hash === null ? null : $now,
                    'updated_at' => $now,
                ]));
                $before = $row->$column;
                $write();
            });
        } catch (Throwable $exception) {
            // The row is as it was: so must Redis be. Where that fails as well, mqtt:sync-tokens does it.
            if ($before !== false && $hash !== null) {
                $this->restore($serialNo, $before);
            }
            throw $exception;
        }
    }

    private function restore(string $serialNo, ?string $hash): void
    {
        try {
            if ($hash === null) {
                $this->redis->call(['DEL', $this->keys->token($serialNo)]);
            } else {
                $this->write($serialNo, $this->hashOf($hash));
            }
        } catch (Throwable) {
            // What is thrown says that it is unknown.
        }
    }

    /** @throws RedisUnavailable */
    private function write(string $serialNo, string $hash): void
    {
        $format = $this->settings['tokens']['format'];
        if (! in_array($format, [self::STRING, self::HASH], true)) {
            throw new InvalidArgumentException("sluicegate.tokens.format is `{$format}`; it must be string or hash");
        }
        $this->redis->script(self::WRITE, [$this->keys->token($serialNo)], [$format, $hash]);
    }

    /** @throws InvalidCommand */
    private function check(string $serialNo): void
    {
        SerialNo::check($serialNo);
        if (in_array($serialNo, $this->settings['tokens']['reserved'], true)) {
            throw new InvalidCommand("the serial number `{$serialNo}` is the gateway's own name at the broker");
        }
    }

    private function hashOf(string $column): string
    {
        if (! preg_match('/^[0-9a-f]{64}$/Di', $column)) {
            throw new InvalidArgumentException('its row has no SHA-256 (64 hexadecimal digits); issue a new token');
        }

        return strtolower($column);
    }
}
