<?php

namespace Sluicegate\Laravel\Support;

use Carbon\CarbonImmutable;
use Carbon\CarbonInterface;

/** The log of the machines. */
class MachineLog
{
    public function __construct(private Tables $tables)
    {
    }

    /**
     * Writes a row, inside the caller's transaction. False: the one with this key is there.
     *
     * @param array<string, mixed> $entry level, code, message, slot_no, payload
     */
    public function write(int|string $machine, array $entry, CarbonInterface $at, string $key): bool
    {
        $jobKey = $this->tables->column('machine_logs', 'job_key');
        // The unique index is what makes it one row; this look spares a failure in the ordinary case of a job that is
        // done again.
        if ($jobKey !== null && $this->tables->query('machine_logs')->where($jobKey, $key)->exists()) {
            return false;
        }
        $now = $this->tables->time(CarbonImmutable::now());

        return $this->tables->query('machine_logs')->insert($this->tables->row('machine_logs', $entry + [
            'machine_id' => $machine,
            'logged_at' => $this->tables->time($at),
            'job_key' => $key,
            'created_at' => $now,
            'updated_at' => $now,
        ]));
    }
}
