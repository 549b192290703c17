<?php

namespace Sluicegate\Laravel\Listener;

use Illuminate\Contracts\Bus\Dispatcher;
use Illuminate\Contracts\Cache\Repository as Cache;
use Illuminate\Contracts\Foundation\Application;
use Illuminate\Database\DatabaseManager;
use Psr\Log\LoggerInterface;
use Sluicegate\Laravel\Exceptions\MalformedMessage;
use Sluicegate\Laravel\Exceptions\RedisUnavailable;
use Sluicegate\Laravel\Message;
use Sluicegate\Laravel\Redis\Connections;
use Sluicegate\Laravel\Redis\Keys;
use Throwable;

/**
 * Takes jobs from Redis and does them, or dispatches them to the application's queue; oldest first, many in one database
 * transaction where their classes allow it. A job leaves Redis after that, so that one is done twice where this process
 * dies in between, and never lost.
 */
class Listener
{
    /** What the names of this package's instances begin with: by it they are told from other programs' on the same list. */
    public const INSTANCES = 'laravel-';

    /** The longest pause before another attempt, in seconds. */
    private const LONGEST_PAUSE = 30.0;

    /** A job that was at the head so often when its listener had died is a dead letter. */
    private const DEATHS = 10;

    private JobList $list;

    private Lease $lease;

    private string $instance;

    private bool $stopping = false;

    /** @var array<int, string> taken and not done, oldest first */
    private array $held = [];

    /** Whether what is held is what the processing list has: after a lost answer it may not be. */
    private bool $known = false;

    private int $done = 0;

    /** How many are tried in one transaction: half as many after one that failed, twice as many after a good one. */
    private int $together = 1;

    /** How many of what is held are done alone: they stood there when the process before this one died, perhaps of one. */
    private int $alone = 0;

    /** How often a batch had to wait for what it needs. */
    private int $waits = 0;

    private ?string $said = null;

    /**
     * @param array<string, mixed> $settings of config/sluicegate.php
     */
    public function __construct(
        private Application $app,
        private Dispatcher $bus,
        private DatabaseManager $databases,
        private LoggerInterface $log,
        private Connections $redis,
        private Keys $keys,
        private Batch $batch,
        private array $settings
    ) {
    }

    /** The name that an instance has in Redis; none given: the settings', else the host's. */
    public function nameOf(?string $given): string
    {
        $name = (string) ($given ?: $this->settings['listener']['instance'] ?: gethostname() ?: 'one');

        return str_starts_with($name, self::INSTANCES) ? $name : self::INSTANCES . $name;
    }

    /** Ends the loop after the job that is under way. */
    public function stop(): void
    {
        $this->stopping = true;
    }

    /** Runs until it is told to stop, or a limit is reached. How many jobs were done. */
    public function run(string $instance, Limits $limits): int
    {
        $this->instance = $this->nameOf($instance);
        $this->list = new JobList($this->redis, $this->keys, $this->instance);
        $life = max(3, (int) $this->settings['listener']['lease']);
        $this->lease = new Lease($this->redis, $this->keys, $this->instance, $life);
        $this->done = 0;
        [$this->together, $this->waits] = [$this->most(), 0];
        $until = $limits->seconds > 0 ? microtime(true) + $limits->seconds : INF;
        $restart = $this->restartedAt(null);
        $failures = 0;
        $first = true;
        while (! $this->stopping && microtime(true) < $until && ($limits->jobs === 0 || $this->done < $limits->jobs)) {
            try {
                $this->hearSignals();
                if ($this->lease->isDue()) {
                    $this->keepLease();
                    // Asked as often as the lease is renewed, since the answer may lie on another server.
                    if ($this->restartedAt($restart) !== $restart || memory_get_usage(true) > $limits->memory << 20) {
                        break;
                    }
                }
                if (! $this->lease->isInForce() || ! $limits->inMaintenance && $this->app->isDownForMaintenance()) {
                    $this->pause(1.0);
                    continue;
                }
                if (! $this->known) {
                    $this->held = $this->list->standing();
                    $this->known = true;
                    $this->alone = 0;
                    if ($first && $this->held) {
                        $this->alone = $jobs = count($this->held);
                        $this->log->info('mqtt:listen: jobs stood in the processing list', compact('jobs'));
                        $this->judgeFirst();
                    }
                    $first = false;
                }
                if (! $this->held) {
                    $block = $limits->untilEmpty ? 0 : max(1, (int) $this->settings['listener']['block']);
                    $this->held = $this->list->take($this->most(), $block);
                    if (! $this->held && $limits->untilEmpty) {
                        break;
                    }
                }
                if ($this->held) {
                    $left = $limits->jobs === 0 ? PHP_INT_MAX : $limits->jobs - $this->done;
                    $finished = $this->next(min($left, $this->together));
                    $this->held = array_slice($this->held, $finished);
                    $this->alone = max(0, $this->alone - $finished);
                    $this->done += $finished;
                }
                $failures = 0;
                if ($this->waits === 0) {
                    $this->good();
                }
            } catch (RedisUnavailable $failure) {
                $this->trouble('Redis is away; the jobs wait there', $failure);
                // What was taken, or taken off, without an answer stands there.
                $this->known = false;
                $this->held = [];
                $this->pause($this->delay($failures++));
            }
        }
        $this->lease->release();

        return $this->done;
    }

    /**
     * Does the next jobs, up to so many; how many of what is held are off the list.
     *
     * @throws RedisUnavailable
     */
    private function next(int $most): int
    {
        $queued = (string) $this->settings['queue']['connection'] !== '';
        $read = $most < 2 || $this->alone > 0 || $queued ? [] : $this->batch->read(array_slice($this->held, 0, $most));
        if (count($read) > 1) {
            return $this->processBatch($read);
        }
        if (! $this->process($this->held[0])) {
            return 0;
        }
        $this->together = min($this->most(), 2 * $this->together);

        return 1;
    }

    /**
     * Does jobs in one transaction. After a failure nothing of it is done, and fewer are tried together: the one that is
     * to blame is found, alone, in its turn.
     *
     * @param array<int, Message|string> $read
     *
     * @throws RedisUnavailable
     */
    private function processBatch(array $read): int
    {
        $count = count($read);
        try {
            $wrong = $this->batch->work($read);
        } catch (RedisUnavailable $failure) {
            throw $failure;
        } catch (Throwable $failure) {
            if (Failure::isOfTheJob($failure)) {
                $this->log->debug('mqtt:listen: one of a batch failed', ['jobs' => $count, 'exception' => $failure]);
                $this->together = max(1, intdiv($count, 2));
                $this->waits = 0;
                $this->reconnect();

                return 0;
            }
            $this->trouble('a job waits for what it needs', $failure);
            $this->reconnect();
            $this->pause($this->delay($this->waits++));

            return 0;
        }
        $this->waits = 0;
        $this->together = min($this->most(), 2 * $this->together);
        $this->list->done(array_values(array_diff_key(array_slice($this->held, 0, $count), $wrong)));
        foreach ($wrong as $place => $reason) {
            $this->bury($this->held[$place], $reason, 1);
        }

        return $count;
    }

    private function most(): int
    {
        return max(1, (int) $this->settings['listener']['batch']);
    }

    /**
     * Does one job. True: it is off the list.
     *
     * @throws RedisUnavailable
     */
    private function process(string $entry): bool
    {
        [$attempts, $waits] = [0, 0];
        while (true) {
            try {
                $message = Message::parse($entry);
                $this->hand($message);
                $this->list->done([$entry]);

                return true;
            } catch (RedisUnavailable $failure) {
                throw $failure;
            } catch (MalformedMessage $failure) {
                $this->bury($entry, $failure->getMessage(), 1);

                return true;
            } catch (Throwable $failure) {
                if (Failure::isOfTheJob($failure)) {
                    if (++$attempts >= max(1, (int) $this->settings['listener']['attempts'])) {
                        $this->bury($entry, get_class($failure) . ': ' . $failure->getMessage(), $attempts);

                        return true;
                    }
                    $this->log->warning('mqtt:listen: a job failed and is tried again', ['exception' => $failure]);
                    $delay = $this->delay($attempts - 1);
                } else {
                    $this->trouble('a job waits for what it needs', $failure);
                    $delay = $this->delay($waits++);
                }
                $this->reconnect();
                if (! $this->pause($delay)) {
                    return false;
                }
            }
        }
    }

    /** Gives a message to its job, here or on the application's queue. */
    private function hand(Message $message): void
    {
        $class = $this->settings['jobs'][$message->type] ?? null;
        if ($class === null) {
            $known = implode(', ', array_keys($this->settings['jobs']));
            throw new MalformedMessage(
                "the type `{$message->type}` has no job in sluicegate.jobs, which has {$known}"
            );
        }
        $job = new $class($message);
        $connection = $this->settings['queue']['connection'];
        if ($connection === null || $connection === '') {
            $this->bus->dispatchNow($job);

            return;
        }
        $job->onConnection($connection)->onQueue($this->settings['queue']['name']);
        $this->bus->dispatch($job);
    }

    /** @throws RedisUnavailable */
    private function keepLease(): void
    {
        $answer = $this->lease->renew();
        if ($answer === Lease::SUPERSEDED) {
            $this->known = false;
            $this->held = [];
            $this->say(
                'error',
                "mqtt:listen: a newer process has the name `{$this->instance}`: it takes the jobs, this one waits until"
                . ' that one is gone; give each process a name of its own (--instance)'
            );

            return;
        }
        if ($answer === Lease::LAPSED) {
            $this->known = false;
            $this->held = [];
            $this->log->warning('mqtt:listen: the lease had run out; what others took over is theirs');
        }
        foreach ($this->list->takeOver() as $instance => $jobs) {
            $text = 'mqtt:listen: took over from an instance whose lease ran out';
            $this->log->warning($text, compact('instance', 'jobs'));
        }
    }

    /** @throws RedisUnavailable */
    private function judgeFirst(): void
    {
        $deaths = $this->list->foundAtStart($this->held[0]);
        if ($deaths >= self::DEATHS) {
            $reason = "its listener ended {$deaths} times while it was the first to be done";
            $this->bury(array_shift($this->held), $reason, $deaths);
            $this->alone--;
        }
    }

    /** @throws RedisUnavailable */
    private function bury(string $entry, string $reason, int $attempts): void
    {
        $this->list->bury($entry, $reason, $attempts, (int) $this->settings['queues']['dead_letters_max']);
        $this->log->warning('mqtt:listen: a job is a dead letter', compact('reason', 'attempts'));
    }

    /**
     * Waits, and keeps the lease meanwhile. False: what is held is not to be gone on with.
     *
     * @throws RedisUnavailable
     */
    private function pause(float $seconds): bool
    {
        $until = microtime(true) + $seconds;
        while (! $this->stopping && microtime(true) < $until) {
            // A signal ends it early.
            usleep((int) (1e6 * min(0.2, max(0.001, $until - microtime(true)))));
            $this->hearSignals();
            if (isset($this->lease) && $this->known && $this->lease->isDue()) {
                $this->keepLease();
            }
        }

        return ! $this->stopping && $this->known;
    }

    /** What came while PHP was inside a call is told at the latest here. */
    private function hearSignals(): void
    {
        if (function_exists('pcntl_signal_dispatch')) {
            pcntl_signal_dispatch();
        }
    }

    /** Exponential, with jitter: several listeners do not come all at once. */
    private function delay(int $before): float
    {
        return min(self::LONGEST_PAUSE, 0.25 * 2 ** min($before, 10)) * (0.5 + mt_rand() / mt_getrandmax() / 2);
    }

    /** A connection that broke is not used again; the next query makes another. */
    private function reconnect(): void
    {
        $name = $this->settings['database']['connection'] ?: $this->databases->getDefaultConnection();
        try {
            $this->databases->purge($name);
        } catch (Throwable $failure) {
            $this->log->debug('mqtt:listen: cannot close the connection to the database', ['exception' => $failure]);
        }
    }

    /** The note that queue:restart leaves: a listener with the old code ends, too. */
    private function restartedAt(?int $before): ?int
    {
        try {
            return $this->app->make(Cache::class)->get('illuminate:queue:restart');
        } catch (Throwable) {
            // A cache that is away says nothing.
            return $before;
        }
    }

    private function trouble(string $what, Throwable $failure): void
    {
        $this->say('warning', "mqtt:listen: {$what}: {$failure->getMessage()}");
    }

    /** Says a thing once, until all is well again. */
    private function say(string $level, string $text): void
    {
        if ($this->said === null) {
            $this->log->log($level, $text);
        }
        $this->said = $text;
    }

    private function good(): void
    {
        if ($this->said !== null) {
            $this->said = null;
            $this->log->info('mqtt:listen: all is well again');
        }
    }
}
