<?php

namespace Sluicegate\Laravel\Listener;

use Illuminate\Contracts\Bus\Dispatcher;
use Sluicegate\Laravel\Contracts\WorksInBatches;
use Sluicegate\Laravel\Exceptions\MalformedMessage;
use Sluicegate\Laravel\Jobs\ProcessHeartbeatJob;
use Sluicegate\Laravel\Message;
use Sluicegate\Laravel\Support\Heartbeats;
use Sluicegate\Laravel\Support\Tables;

/** Jobs that are done in one database transaction: one commit, and of all heartbeats one statement. */
class Batch
{
    /**
     * @param array<string, mixed> $settings of config/sluicegate.php
     */
    public function __construct(
        private Dispatcher $bus,
        private Tables $tables,
        private Heartbeats $heartbeats,
        private array $settings
    ) {
    }

    /**
     * Reads entries from the first one on, up to the first whose job is to be done alone.
     *
     * @param array<int, string> $entries
     *
     * @return array<int, Message|string> or why it is none
     */
    public function read(array $entries): array
    {
        $read = [];
        foreach ($entries as $entry) {
            try {
                $message = Message::parse($entry);
                if (! is_a($this->settings['jobs'][$message->type] ?? '', WorksInBatches::class, true)) {
                    break;
                }
                $read[] = $message;
            } catch (MalformedMessage $failure) {
                $read[] = $failure->getMessage();
            }
        }

        return $read;
    }

    /**
     * Does them, all or none.
     *
     * @param array<int, Message|string> $read
     *
     * @return array<int, string> why some can never be done, by their place; the others are committed
     */
    public function work(array $read): array
    {
        return $this->tables->batch(function () use ($read): array {
            [$wrong, $beats] = [[], []];
            $together = $this->heartbeats->isPossible();
            foreach ($read as $place => $message) {
                if (is_string($message)) {
                    $wrong[$place] = $message;
                    continue;
                }
                $class = $this->settings['jobs'][$message->type];
                try {
                    if ($together && $class === ProcessHeartbeatJob::class) {
                        $beats[$place] = ['message' => $message, 'told' => Heartbeats::read($message)];
                    } else {
                        $this->bus->dispatchNow(new $class($message));
                    }
                } catch (MalformedMessage $failure) {
                    $wrong[$place] = $failure->getMessage();
                }
            }

            // They change nothing that the others look at, so they need not stand in their places among them. At the
            // end, the rows that many wait for are locked for a moment only.
            return $beats ? $wrong + $this->heartbeats->write($beats) : $wrong;
        });
    }
}
