<?php

namespace Sluicegate\Laravel\Support;

use Carbon\CarbonInterface;
use Closure;
use Illuminate\Container\Container;
use Illuminate\Contracts\Config\Repository as Config;
use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Database\Connection;
use Illuminate\Database\DatabaseManager;
use Illuminate\Database\Query\Builder;
use Illuminate\Database\QueryException;
use InvalidArgumentException;
use Throwable;

/** The database, by the names that the package has for tables and columns; the settings say what the application calls them. */
class Tables
{
    /** Of a transaction that ends in a deadlock. */
    private const ATTEMPTS = 3;

    private const SQLSTATE_INTEGRITY = '23';

    /** @var array<int, Closure>|null what waits for the commit of a batch; none: there is no batch */
    private ?array $waiting = null;

    /**
     * @param array<string, mixed> $settings of config/sluicegate.php
     */
    public function __construct(private DatabaseManager $databases, private Config $config, private array $settings)
    {
    }

    public function connection(): Connection
    {
        return $this->databases->connection($this->settings['database']['connection'] ?: null);
    }

    public function name(string $table): string
    {
        return $this->settings['database']['tables'][$table]
            ?? throw new InvalidArgumentException("sluicegate.database.tables has no `{$table}`");
    }

    /** What a column is called; null: it is not kept. */
    public function column(string $table, string $column): ?string
    {
        return $this->settings['database']['columns'][$table][$column] ?? null;
    }

    /** What a column is called that cannot be left out. */
    public function must(string $table, string $column): string
    {
        return $this->column($table, $column)
            ?? throw new InvalidArgumentException("sluicegate.database.columns.{$table}.{$column} must have a name");
    }

    public function query(string $table): Builder
    {
        return $this->connection()->table($this->name($table));
    }

    /**
     * Values by the application's names, without those that are not kept.
     *
     * @param array<string, mixed> $values
     *
     * @return array<string, mixed>
     */
    public function row(string $table, array $values): array
    {
        $row = [];
        foreach ($values as $column => $value) {
            $name = $this->column($table, $column);
            if ($name !== null) {
                $row[$name] = $value;
            }
        }

        return $row;
    }

    /**
     * Work in one transaction; again after a deadlock, and once more where another wrote the same row between a look
     * and the write: this time the look sees it.
     */
    public function transaction(Closure $work): mixed
    {
        try {
            return $this->connection()->transaction($work, self::ATTEMPTS);
        } catch (QueryException $exception) {
            if (substr((string) ($exception->errorInfo[0] ?? ''), 0, 2) !== self::SQLSTATE_INTEGRITY) {
                throw $exception;
            }

            return $this->connection()->transaction($work, self::ATTEMPTS);
        }
    }

    /**
     * Several jobs in one transaction; their own are parts of it. Once: whoever fails is done again otherwise.
     *
     * @throws Throwable nothing of it was done, and nobody was told anything
     */
    public function batch(Closure $work): mixed
    {
        $this->waiting = [];
        try {
            $done = $this->connection()->transaction($work);
            $told = $this->waiting;
        } finally {
            $this->waiting = null;
        }
        foreach ($told as $tell) {
            try {
                $tell();
            } catch (Throwable $failure) {
                // It is committed: a listener of the application's that fails keeps no other from being told.
                Container::getInstance()->make(ExceptionHandler::class)->report($failure);
            }
        }

        return $done;
    }

    /** What others are told of once it is so: in a batch after its commit, else at once. */
    public function afterCommit(Closure $tell): void
    {
        if ($this->waiting === null) {
            $tell();

            return;
        }
        $this->waiting[] = $tell;
    }

    /** A time as Laravel writes it: in the application's zone, with the fraction that the gateway may give. */
    public function time(CarbonInterface $time): string
    {
        return $time->setTimezone($this->config->get('app.timezone', 'UTC'))->format('Y-m-d H:i:s.v');
    }
}
