<?php

namespace Sluicegate\Laravel\Support;

use Carbon\CarbonImmutable;
use Illuminate\Contracts\Config\Repository as Config;
use Illuminate\Database\QueryException;
use Sluicegate\Laravel\Exceptions\InvalidCommand;
use Sluicegate\Laravel\Exceptions\MalformedMessage;

/** The rows of machines. */
class Machines
{
    public function __construct(private Tables $tables, private Config $config)
    {
    }

    /** The row's id, or null. */
    public function find(string $serialNo): int|string|null
    {
        return $this->tables->query('machines')
            ->where($this->tables->must('machines', 'serial_no'), $serialNo)
            ->value($this->tables->must('machines', 'id'));
    }

    /**
     * The row's id; a machine that has none gets one, where the settings say so.
     *
     * @throws MalformedMessage there is none, and it gets none
     */
    public function of(string $serialNo): int|string
    {
        $id = $this->find($serialNo);
        if ($id !== null) {
            return $id;
        }
        if ($this->config->get('sluicegate.listener.unknown_machines') !== 'create') {
            throw new MalformedMessage("no machine has the serial number `{$serialNo}`");
        }
        try {
            SerialNo::check($serialNo);
        } catch (InvalidCommand $exception) {
            throw new MalformedMessage($exception->getMessage(), 0, $exception);
        }
        $now = $this->tables->time(CarbonImmutable::now());
        try {
            return $this->tables->query('machines')->insertGetId(
                $this->tables->row('machines', ['serial_no' => $serialNo, 'created_at' => $now, 'updated_at' => $now]),
                $this->tables->must('machines', 'id')
            );
        } catch (QueryException $exception) {
            // Another was faster.
            return $this->find($serialNo) ?? throw $exception;
        }
    }
}
