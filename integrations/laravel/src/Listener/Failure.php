<?php

namespace Sluicegate\Laravel\Listener;

use PDOException;
use Psr\SimpleCache\CacheException;
use RedisException;
use Sluicegate\Laravel\Exceptions\RedisUnavailable;
use Throwable;

/** Whose fault a failure is: the job's own, so that it ends as a dead letter, or its surroundings', so that it waits for them. */
final class Failure
{
    /**
     * MySQL's codes of what is wrong with a value, beside those of the SQLSTATE classes: 1526 is a value that no partition
     * takes, 3819 one that a CHECK of MySQL 8 refuses.
     */
    private const VALUES = [1264, 1265, 1366, 1406, 1526, 3819];

    /**
     * Data; a key that is there already (another was faster, and the next attempt sees it); a view's CHECK OPTION; what a
     * trigger of the application signals.
     */
    private const SQLSTATE_CLASSES = ['22', '23', '44', '45'];

    /** Whether another attempt, at any time, may end otherwise. */
    public static function isOfTheJob(Throwable $failure): bool
    {
        for ($cause = $failure; $cause !== null; $cause = $cause->getPrevious()) {
            if ($cause instanceof PDOException) {
                return self::isOfTheValues($cause);
            }
            if (
                $cause instanceof RedisUnavailable
                || $cause instanceof RedisException
                || $cause instanceof CacheException
                || is_a($cause, 'Predis\PredisException')
            ) {
                return false;
            }
        }

        return true;
    }

    /**
     * A database that is away, read-only, full, in a deadlock, or without the table says nothing of the job. Laravel's
     * QueryException is a PDOException with the same errorInfo.
     */
    private static function isOfTheValues(PDOException $exception): bool
    {
        $state = (string) ($exception->errorInfo[0] ?? $exception->getCode());
        $code = (int) ($exception->errorInfo[1] ?? 0);

        return in_array(substr($state, 0, 2), self::SQLSTATE_CLASSES, true)
            || in_array($code, self::VALUES, true);
    }
}
