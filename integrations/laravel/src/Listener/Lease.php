<?php

namespace Sluicegate\Laravel\Listener;

use Sluicegate\Laravel\Exceptions\RedisUnavailable;
use Sluicegate\Laravel\Redis\Connections;
use Sluicegate\Laravel\Redis\Keys;

/**
 * Who works on a processing list: whoever holds its instance's lease. The same steps and keys as the gateway's and
 * sluicegate-backend's, so that either may take over what this one leaves.
 */
class Lease
{
    /** It was held, and is for another life. */
    public const HELD = 'held';

    /** It had run out, and is held again: others may have taken over. */
    public const LAPSED = 'lapsed';

    /** A newer process of the same name has it. */
    public const SUPERSEDED = 'superseded';

    /** KEYS: lease, starts, instances; ARGV: life in ms, name. Whoever had it: of two with one name the newer wins. */
    private const START = <<<'LUA'
        redis.call('DEL', KEYS[1])
        local number = redis.call('INCR', KEYS[2])
        redis.call('SET', KEYS[1], number, 'PX', ARGV[1])
        redis.call('SADD', KEYS[3], ARGV[2])
        return number
        LUA;

    /** 1: held; negative: it had run out, and is held under that number; 0: a newer process has it. ARGV: number, life in ms, name. */
    private const RENEW = <<<'LUA'
        if redis.call('GET', KEYS[1]) == ARGV[1] then
          redis.call('PEXPIRE', KEYS[1], ARGV[2])
          return 1
        end
        local latest = redis.call('GET', KEYS[2])
        if latest and tonumber(latest) > tonumber(ARGV[1]) then return 0 end
        redis.call('DEL', KEYS[1])
        redis.call('SET', KEYS[2], ARGV[1])
        local number = redis.call('INCR', KEYS[2])
        redis.call('SET', KEYS[1], number, 'PX', ARGV[2])
        redis.call('SADD', KEYS[3], ARGV[3])
        return -number
        LUA;

    /** Again, once a newer process of the same name has it no more; 0: somebody has. ARGV: life in ms, name. */
    private const SUCCEED = <<<'LUA'
        if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
        local number = redis.call('INCR', KEYS[2])
        redis.call('SET', KEYS[1], number, 'PX', ARGV[1])
        redis.call('SADD', KEYS[3], ARGV[2])
        return number
        LUA;

    /** KEYS: lease; ARGV: number. */
    private const RELEASE = <<<'LUA'
        if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
        return 1
        LUA;

    /** Of this process, once it has one. */
    private ?int $number = null;

    private bool $superseded = false;

    /** Until when it may be relied on, and when it is to be renewed, on a clock that never jumps. */
    private float $validUntil = 0.0;

    private float $renewAt = 0.0;

    /**
     * @param int $life in seconds
     */
    public function __construct(
        private Connections $redis,
        private Keys $keys,
        private string $instance,
        private int $life
    ) {
    }

    public function isDue(): bool
    {
        return self::now() >= $this->renewAt;
    }

    /** Whether jobs may be worked on. */
    public function isInForce(): bool
    {
        return ! $this->superseded && self::now() < $this->validUntil;
    }

    /**
     * Takes it the first time, then renews it; HELD the first time.
     *
     * @throws RedisUnavailable
     */
    public function renew(): string
    {
        $asked = self::now();
        $life = $this->life * 1000;
        $keys = [$this->keys->lease($this->instance), $this->keys->starts($this->instance), $this->keys->instances];
        if ($this->number === null) {
            $this->number = (int) $this->redis->script(self::START, $keys, [$life, $this->instance]);

            return $this->holds($asked, self::HELD);
        }
        if ($this->superseded) {
            $number = (int) $this->redis->script(self::SUCCEED, $keys, [$life, $this->instance]);
            if ($number === 0) {
                // A moment is enough: nobody waits for this process.
                $this->renewAt = $asked + 3.0;

                return self::SUPERSEDED;
            }
            $this->number = $number;
            $this->superseded = false;

            return $this->holds($asked, self::LAPSED);
        }
        $number = (int) $this->redis->script(self::RENEW, $keys, [$this->number, $life, $this->instance]);
        if ($number === 0) {
            $this->superseded = true;
            $this->renewAt = $asked + 3.0;

            return self::SUPERSEDED;
        }
        if ($number < 0) {
            $this->number = -$number;

            return $this->holds($asked, self::LAPSED);
        }

        return $this->holds($asked, self::HELD);
    }

    /** Gives it back, so that others need not wait for its end. Where Redis is away it runs out by itself. */
    public function release(): void
    {
        if ($this->number === null) {
            return;
        }
        try {
            $this->redis->script(self::RELEASE, [$this->keys->lease($this->instance)], [$this->number]);
        } catch (RedisUnavailable) {
            // Said above.
        }
    }

    private function holds(float $asked, string $answer): string
    {
        $this->validUntil = $asked + $this->life;
        $this->renewAt = $asked + $this->life / 3;

        return $answer;
    }

    private static function now(): float
    {
        return hrtime(true) / 1e9;
    }
}
