<?php

namespace Sluicegate\Laravel\Jobs;

use Carbon\CarbonImmutable;
use Sluicegate\Laravel\Contracts\WorksInBatches;
use Sluicegate\Laravel\Support\Heartbeats;
use Sluicegate\Laravel\Support\Machines;
use Sluicegate\Laravel\Support\Tables;

/** A machine is there: when it was heard last, and what it says of itself. */
class ProcessHeartbeatJob extends MachineJob implements WorksInBatches
{
    public function handle(Tables $tables, Machines $machines): void
    {
        $told = Heartbeats::read($this->message);
        $heardAt = $tables->time($this->message->heardAt());
        $row = $tables->row('machines', [
            'last_heard_at' => $heardAt,
            'updated_at' => $tables->time(CarbonImmutable::now()),
            // What it does not say stays.
            ...$told,
        ]);
        $lastHeardAt = $tables->must('machines', 'last_heard_at');
        $update = fn (): int => $tables->query('machines')
            ->where($tables->must('machines', 'serial_no'), $this->message->serialNo)
            // In the same statement: between a look and a change another might come.
            ->where(fn ($query) => $query->whereNull($lastHeardAt)->orWhere($lastHeardAt, '<=', $heardAt))
            ->update($row);
        // Nothing changed: it is older than what is there, the same again, or of a machine without a row.
        if ($update() === 0 && $machines->find($this->message->serialNo) === null) {
            $machines->of($this->message->serialNo);
            $update();
        }
    }
}
