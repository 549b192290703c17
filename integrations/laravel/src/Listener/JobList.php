<?php

namespace Sluicegate\Laravel\Listener;

use Sluicegate\Laravel\Exceptions\RedisUnavailable;
use Sluicegate\Laravel\Redis\Connections;
use Sluicegate\Laravel\Redis\Keys;

/**
 * The list of jobs, and what this instance took from it. A job is moved into the instance's processing list in one
 * step, and stands there until it is done: what dies in between loses nothing.
 */
class JobList
{
    /**
     * LTRIM takes nothing off; it stands there because it needs no memory, and what comes after a write in a script is done
     * without any: a server over its limit could never be emptied else. The same below.
     * KEYS: list, processing list; ARGV: the most.
     */
    private const TAKE = <<<'LUA'
        redis.call('LTRIM', KEYS[2], 0, -1)
        local taken = {}
        for i = 1, tonumber(ARGV[1]) do
          local entry = redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT')
          if not entry then break end
          taken[i] = entry
        end
        return taken
        LUA;

    /**
     * What an instance without a lease has under way goes back to the head of the list, in its order; -1: it has one.
     * KEYS: lease, processing list, list, instances; ARGV: name.
     */
    private const TAKE_OVER = <<<'LUA'
        if redis.call('EXISTS', KEYS[1]) == 1 then return -1 end
        redis.call('LTRIM', KEYS[2], 0, -1)
        local moved = 0
        while redis.call('LMOVE', KEYS[2], KEYS[3], 'RIGHT', 'LEFT') do moved = moved + 1 end
        redis.call('SREM', KEYS[4], ARGV[1])
        return moved
        LUA;

    /**
     * A dead letter is written and its job leaves the processing list, in one step.
     * KEYS: processing list, dead letters; ARGV: entry, letter, how many are kept.
     */
    private const BURY = <<<'LUA'
        redis.call('LREM', KEYS[1], 1, ARGV[1])
        local length = redis.call('RPUSH', KEYS[2], ARGV[2])
        if length > tonumber(ARGV[3]) then redis.call('LTRIM', KEYS[2], -tonumber(ARGV[3]), -1) end
        return length
        LUA;

    /** KEYS: processing list; ARGV: entries. They stand at its head: none is looked for long. */
    private const DONE = <<<'LUA'
        for _, entry in ipairs(ARGV) do redis.call('LREM', KEYS[1], 1, entry) end
        return #ARGV
        LUA;

    /** How long it is remembered that a job was there when its listener died, in seconds. */
    private const DEATHS_KEPT = 86400;

    private string $processing;

    public function __construct(private Connections $redis, private Keys $keys, private string $instance)
    {
        $this->processing = $keys->processing($instance);
    }

    /**
     * What stands in the processing list, oldest first.
     *
     * @return array<int, string>
     *
     * @throws RedisUnavailable
     */
    public function standing(): array
    {
        return $this->redis->call(['LRANGE', $this->processing, 0, -1]) ?? [];
    }

    /**
     * Takes up to so many jobs, oldest first; waits for the first one for up to so many seconds. None may have come.
     *
     * @return array<int, string>
     *
     * @throws RedisUnavailable jobs may have been taken that nobody was told of: they stand in the processing list
     */
    public function take(int $most, int $block): array
    {
        $taken = $this->redis->script(self::TAKE, [$this->keys->incoming, $this->processing], [$most]);
        if ($taken || $block === 0) {
            return $taken ?: [];
        }
        // Never without an end: the client's read time-out would break the connection, while the server still moves a
        // job to it.
        try {
            $first = $this->redis->call(
                ['BLMOVE', $this->keys->incoming, $this->processing, 'LEFT', 'RIGHT', $block],
                Connections::BLOCKING
            );
        } catch (RedisUnavailable $exception) {
            if (! str_contains($exception->getMessage(), 'OOM ')) {
                throw $exception;
            }
            // A wait that moves is refused where memory is used up; taking is not.
            sleep(1);

            return [];
        }

        return is_string($first) ? [$first] : [];
    }

    /**
     * Jobs are done.
     *
     * @param array<int, string> $entries
     *
     * @throws RedisUnavailable they may be off the list
     */
    public function done(array $entries): void
    {
        if ($entries) {
            $this->redis->script(self::DONE, [$this->processing], $entries);
        }
    }

    /**
     * A job is given up.
     *
     * @throws RedisUnavailable it may be a dead letter
     */
    public function bury(string $entry, string $reason, int $attempts, int $most): void
    {
        $isText = mb_check_encoding($entry, 'UTF-8');
        $letter = json_encode([
            'reason' => mb_strcut($reason, 0, 2000, 'UTF-8'),
            'attempts' => $attempts,
            'list' => $this->keys->incoming,
            'instance' => $this->instance,
            'dead_at' => gmdate('Y-m-d\TH:i:s\Z'),
            $isText ? 'job' : 'job_base64' => $isText ? $entry : base64_encode($entry),
        ], JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE);
        $this->redis->script(self::BURY, [$this->processing, $this->keys->deadLetters], [$entry, $letter, $most]);
    }

    /**
     * Notes that a job was the first to stand when this listener came to life, so that one that ends the process (for
     * want of memory, say) does not do so for ever. How often that was.
     *
     * @throws RedisUnavailable
     */
    public function foundAtStart(string $entry): int
    {
        $count = (int) $this->redis->call(['HINCRBY', $this->keys->deaths, hash('sha256', $entry), 1]);
        $this->redis->call(['EXPIRE', $this->keys->deaths, self::DEATHS_KEPT]);

        return $count;
    }

    /**
     * Takes over what instances of this package left whose lease ran out: it goes back to the head of the list. Those
     * of other programs are theirs to judge: they may have committed what stands there.
     *
     * @return array<string, int> how many, by instance
     *
     * @throws RedisUnavailable
     */
    public function takeOver(): array
    {
        $moved = [];
        foreach ($this->redis->call(['SMEMBERS', $this->keys->instances]) ?? [] as $instance) {
            if ($instance === $this->instance || ! str_starts_with($instance, Listener::INSTANCES)) {
                continue;
            }
            $count = (int) $this->redis->script(self::TAKE_OVER, [
                $this->keys->lease($instance),
                $this->keys->processing($instance),
                $this->keys->incoming,
                $this->keys->instances,
            ], [$instance]);
            if ($count > 0) {
                $moved[$instance] = $count;
            }
        }

        return $moved;
    }
}
