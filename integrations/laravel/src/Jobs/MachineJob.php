<?php

namespace Sluicegate\Laravel\Jobs;

use Illuminate\Bus\Queueable;
use Illuminate\Contracts\Queue\ShouldQueue;
use Illuminate\Foundation\Bus\Dispatchable;
use Illuminate\Queue\InteractsWithQueue;
use Sluicegate\Laravel\Message;

/**
 * A job of one machine's message. It may be done twice, and beside others: doing it again changes nothing, and an older
 * message overwrites nothing newer.
 */
abstract class MachineJob implements ShouldQueue
{
    use Dispatchable;
    use InteractsWithQueue;
    use Queueable;

    /** On the application's queue: a database that is away for a while is outlasted. */
    public int $tries = 10;

    /** @var array<int, int> seconds before the next attempt there */
    public array $backoff = [1, 5, 15, 60, 300];

    public function __construct(public Message $message)
    {
    }
}
