<?php

namespace Sluicegate\Laravel\Jobs;

use Illuminate\Contracts\Events\Dispatcher;
use Sluicegate\Laravel\Contracts\WorksInBatches;
use Sluicegate\Laravel\Events\MachineErrorReported;
use Sluicegate\Laravel\Support\Fields;
use Sluicegate\Laravel\Support\MachineLog;
use Sluicegate\Laravel\Support\Machines;
use Sluicegate\Laravel\Support\Tables;

/** Something went wrong at a machine: a row of its log, and an event for whoever tells people. */
class ProcessMachineErrorJob extends MachineJob implements WorksInBatches
{
    public function handle(Tables $tables, Machines $machines, MachineLog $log, Dispatcher $events): void
    {
        $fields = new Fields($this->message);
        $entry = [
            'level' => $fields->word('level', 16) ?? 'error',
            'code' => $fields->required('error_code', $fields->word('error_code', 64)),
            'message' => $fields->text('message') ?? '',
            'slot_no' => $fields->integer('slot_no', 0),
        ];
        // The machine's own name for it makes it the same as another; without one, the same entry of the list is the
        // same error.
        $id = $fields->word('message_id', 128, 1);
        $key = $id === null ? $this->message->key : hash('sha256', "{$this->message->serialNo}\0{$id}");
        $isNew = $tables->transaction(fn (): bool => $log->write(
            $machines->of($this->message->serialNo),
            $entry + ['payload' => $this->message->payload],
            $this->message->receivedAt(),
            $key
        ));
        if ($isNew) {
            $tables->afterCommit(fn () => $events->dispatch(new MachineErrorReported(
                $this->message->serialNo,
                $entry['code'],
                $entry['level'],
                $entry['message'],
                $entry['slot_no'],
                $this->message->receivedAt()
            )));
        }
    }
}
