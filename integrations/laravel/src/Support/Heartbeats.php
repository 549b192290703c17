<?php

namespace Sluicegate\Laravel\Support;

use Carbon\CarbonImmutable;
use Sluicegate\Laravel\Exceptions\MalformedMessage;
use Sluicegate\Laravel\Message;

/**
 * Many heartbeats as one statement, which comes to the same as one after the other: an older one overwrites nothing
 * newer, also not one field of it, and what none of them says stays.
 */
class Heartbeats
{
    /** What a heartbeat may say. */
    private const FIELDS = ['temperature', 'current_page'];

    /** Databases that take a time as text wherever it stands. */
    private const DRIVERS = ['mysql', 'mariadb', 'sqlite'];

    public function __construct(private Tables $tables, private Machines $machines)
    {
    }

    /** Whether this database is spoken to so. */
    public function isPossible(): bool
    {
        return in_array($this->tables->connection()->getDriverName(), self::DRIVERS, true);
    }

    /**
     * What a heartbeat says, where it does.
     *
     * @return array<string, mixed>
     *
     * @throws MalformedMessage
     */
    public static function read(Message $message): array
    {
        $fields = new Fields($message);
        $told = [
            'temperature' => $fields->decimal('temperature'),
            'current_page' => $fields->integer('current_page', 0),
        ];

        return array_filter($told, fn ($value) => $value !== null);
    }

    /**
     * Writes them.
     *
     * @param array<int, array{message: Message, told: array<string, mixed>}> $beats in their order
     *
     * @return array<int, string> why some are of no machine, by their place
     */
    public function write(array $beats): array
    {
        [$machines, $wrong] = [$this->ids(array_map(fn ($beat) => $beat['message']->serialNo, $beats)), []];
        $merged = [];
        foreach ($beats as $place => ['message' => $message, 'told' => $told]) {
            $id = $machines[$message->serialNo] ?? null;
            if ($id === null) {
                try {
                    $id = $machines[$message->serialNo] = $this->machines->of($message->serialNo);
                } catch (MalformedMessage $failure) {
                    $wrong[$place] = $failure->getMessage();
                    continue;
                }
            }
            $at = $this->tables->time($message->heardAt());
            // These texts are ordered as the times are. Of one moment the later one is the newer.
            if ($at >= ($merged[$id]['at'] ?? '')) {
                $merged[$id]['at'] = $at;
                foreach ($told as $field => $value) {
                    $merged[$id][$field] = [$at, $value];
                }
            }
        }
        if ($merged) {
            $this->update($merged);
        }

        return $wrong;
    }

    /**
     * @param array<int, string> $serialNos
     *
     * @return array<string, int|string> the rows' ids, by serial number
     */
    private function ids(array $serialNos): array
    {
        [$serialNo, $id] = [$this->tables->must('machines', 'serial_no'), $this->tables->must('machines', 'id')];

        return $this->tables->query('machines')
            ->whereIn($serialNo, array_values(array_unique($serialNos)))
            ->pluck($id, $serialNo)
            ->all();
    }

    /**
     * @param array<int|string, array<string, mixed>> $merged by the rows' ids: when it was heard, and of each field
     *                                                        when it was said and what
     */
    private function update(array $merged): void
    {
        $grammar = $this->tables->connection()->getQueryGrammar();
        $heard = $grammar->wrap($this->tables->must('machines', 'last_heard_at'));
        $id = $grammar->wrap($this->tables->must('machines', 'id'));
        [$sets, $values] = [[], []];
        foreach (self::FIELDS as $field) {
            $column = $this->tables->column('machines', $field);
            $told = array_filter($merged, fn ($beat) => isset($beat[$field]));
            if ($column === null || ! $told) {
                continue;
            }
            $column = $grammar->wrap($column);
            $sets[] = "{$column} = CASE"
                . str_repeat(" WHEN {$id} = ? AND ({$heard} IS NULL OR {$heard} <= ?) THEN ?", count($told))
                . " ELSE {$column} END";
            foreach ($told as $row => $beat) {
                array_push($values, $row, ...$beat[$field]);
            }
        }
        $updated = $this->tables->column('machines', 'updated_at');
        if ($updated !== null) {
            $sets[] = $grammar->wrap($updated) . ' = ?';
            $values[] = $this->tables->time(CarbonImmutable::now());
        }
        $at = "CASE {$id}" . str_repeat(' WHEN ? THEN ?', count($merged)) . ' END';
        $ats = [];
        foreach ($merged as $row => $beat) {
            array_push($ats, $row, $beat['at']);
        }
        // Last: MySQL sets from left to right, and what stands before it looks at the time that was there.
        $sets[] = "{$heard} = {$at}";
        $rows = implode(', ', array_fill(0, count($merged), '?'));
        // A row that was heard of later is none of these: another process was faster.
        $this->tables->connection()->update(
            'UPDATE ' . $grammar->wrapTable($this->tables->name('machines')) . ' SET ' . implode(', ', $sets)
            . " WHERE {$id} IN ({$rows}) AND ({$heard} IS NULL OR {$heard} <= {$at})",
            [...$values, ...$ats, ...array_keys($merged), ...$ats]
        );
    }
}
