<?php

namespace Sluicegate\Laravel\Jobs;

use Carbon\CarbonImmutable;
use Illuminate\Contracts\Config\Repository as Config;
use Illuminate\Contracts\Events\Dispatcher;
use Sluicegate\Laravel\Contracts\WorksInBatches;
use Sluicegate\Laravel\Events\StockDiscrepancyFound;
use Sluicegate\Laravel\Support\Fields;
use Sluicegate\Laravel\Support\MachineLog;
use Sluicegate\Laravel\Support\Machines;
use Sluicegate\Laravel\Support\Tables;

/**
 * A machine sold something: once however often it is told, a row, and less in the slot, in one transaction. What was
 * sold is sold also where the slot held less: then a row of the log and an event say so, and the slot holds nothing.
 */
class ProcessTransactionJob extends MachineJob implements WorksInBatches
{
    private const JSON = JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE;

    private Tables $tables;

    private MachineLog $log;

    public function handle(
        Tables $tables,
        Machines $machines,
        MachineLog $log,
        Config $config,
        Dispatcher $events
    ): void {
        [$this->tables, $this->log] = [$tables, $log];
        $fields = new Fields($this->message);
        $sale = [
            'transaction_id' => $fields->required('transaction_id', $fields->word('transaction_id', 64, 1)),
            'slot_no' => $fields->required('slot_no', $fields->integer('slot_no', 0)),
            'amount' => $fields->required('amount', $fields->decimal('amount', true)),
            'quantity' => $fields->integer('quantity', 0) ?? 1,
            'product_id' => $fields->word('product_id', 64),
            'payment_type' => $fields->word('payment_type', 64),
            'status' => $fields->word('status', 64),
        ];
        $takes = ! in_array($sale['status'], $config->get('sluicegate.database.keeps_stock', []), true);
        $machine = $machines->of($this->message->serialNo);
        $discrepancy = $tables->transaction(function () use ($machine, $sale, $takes): ?StockDiscrepancyFound {
            // One transaction of a machine after the other: the same one, sent twice, is not written by two workers at
            // once.
            $id = $this->tables->must('machines', 'id');
            $this->tables->query('machines')->where($id, $machine)->lockForUpdate()->first();
            if (! $this->record($machine, $sale)) {
                return null;
            }

            return $takes && $sale['quantity'] > 0 ? $this->take($machine, $sale) : null;
        });
        if ($discrepancy !== null) {
            $tables->afterCommit(fn () => $events->dispatch($discrepancy));
        }
    }

    /**
     * False: it is there.
     *
     * @param array<string, mixed> $sale
     */
    private function record(int|string $machine, array $sale): bool
    {
        $isThere = $this->tables->query('transactions')
            ->where($this->tables->must('transactions', 'machine_id'), $machine)
            ->where($this->tables->must('transactions', 'transaction_id'), $sale['transaction_id'])
            ->exists();
        if ($isThere) {
            return false;
        }
        $now = $this->tables->time(CarbonImmutable::now());

        return $this->tables->query('transactions')->insert($this->tables->row('transactions', $sale + [
            'machine_id' => $machine,
            'payload' => $this->message->payload,
            'sold_at' => $this->tables->time($this->message->receivedAt()),
            'created_at' => $now,
            'updated_at' => $now,
        ]));
    }

    /**
     * @param array<string, mixed> $sale
     */
    private function take(int|string $machine, array $sale): ?StockDiscrepancyFound
    {
        $stock = $this->tables->must('machine_slots', 'stock');
        $slot = fn () => $this->tables->query('machine_slots')
            ->where($this->tables->must('machine_slots', 'machine_id'), $machine)
            ->where($this->tables->must('machine_slots', 'slot_no'), $sale['slot_no']);
        $held = $slot()->lockForUpdate()->value($stock);
        $taken = min($sale['quantity'], max(0, (int) $held));
        if ($taken > 0) {
            $now = $this->tables->time(CarbonImmutable::now());
            $slot()->decrement($stock, $taken, $this->tables->row('machine_slots', ['updated_at' => $now]));
        }
        if ($held !== null && $taken === $sale['quantity']) {
            return null;
        }
        [$code, $message] = $held === null
            ? ['slot-unknown', "sold from slot {$sale['slot_no']}, which the machine does not have"]
            : ['stock-short', "sold {$sale['quantity']} from slot {$sale['slot_no']}, which held {$held}"];
        $found = new StockDiscrepancyFound(
            $this->message->serialNo,
            $code,
            $message,
            $sale['transaction_id'],
            $sale['slot_no'],
            $sale['quantity'],
            $held === null ? null : (int) $held
        );
        $key = hash('sha256', "stock\0{$this->message->serialNo}\0{$sale['transaction_id']}");
        $this->log->write($machine, [
            'level' => 'warning',
            'code' => $code,
            'message' => $message,
            'slot_no' => $sale['slot_no'],
            'payload' => json_encode($found->details(), self::JSON),
        ], $this->message->receivedAt(), $key);

        return $found;
    }
}
