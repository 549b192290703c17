<?php

namespace Sluicegate\Laravel\Tests\Support;

use RuntimeException;

/** Waiting for a condition, bounded. */
final class Wait
{
    /**
     * Looks again and again until it sees something.
     *
     * @template T
     *
     * @param callable(): T          $look
     * @param callable(): string|null $log what else is to be told then
     *
     * @return T
     */
    public static function until(string $what, callable $look, float $seconds = 120.0, ?callable $log = null): mixed
    {
        $end = microtime(true) + $seconds;
        while (true) {
            $seen = $look();
            if ($seen) {
                return $seen;
            }
            if (microtime(true) > $end) {
                $more = $log === null ? '' : "\n" . $log();
                throw new RuntimeException("{$seconds} seconds are over, still waiting: {$what}{$more}");
            }
            usleep(20_000);
        }
    }
}
