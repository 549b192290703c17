<?php

use Illuminate\Database\Migrations\Migration;
use Illuminate\Database\Schema\Blueprint;
use Illuminate\Database\Schema\ColumnDefinition;
use Illuminate\Support\Facades\Schema;
use Sluicegate\Laravel\Support\Tables;

// The machines' tables, with the names of the settings. A table that is there already keeps its columns, and gets those
// that it lacks.
return new class () extends Migration {
    public function up(): void
    {
        $this->table('machines', fn (Blueprint $table) => [
            'id' => fn ($name) => $table->bigIncrements($name),
            'serial_no' => fn ($name) => $this->exact($table->string($name, 64))->unique(),
            'last_heard_at' => fn ($name) => $table->timestamp($name, 3)->nullable()->index(),
            'temperature' => fn ($name) => $table->decimal($name, 8, 3)->nullable(),
            'current_page' => fn ($name) => $table->bigInteger($name)->nullable(),
            'api_token_hash' => fn ($name) => $table->char($name, 64)->nullable(),
            'api_token_issued_at' => fn ($name) => $table->timestamp($name, 3)->nullable(),
            'created_at' => fn ($name) => $table->timestamp($name, 3)->nullable(),
            'updated_at' => fn ($name) => $table->timestamp($name, 3)->nullable(),
        ]);
        $this->table('machine_logs', fn (Blueprint $table) => [
            'id' => fn ($name) => $table->bigIncrements($name),
            'machine_id' => fn ($name) => $table->unsignedBigInteger($name)->index(),
            'level' => fn ($name) => $table->string($name, 16)->default('error'),
            'code' => fn ($name) => $table->string($name, 64),
            'message' => fn ($name) => $table->mediumText($name)->nullable(),
            'slot_no' => fn ($name) => $table->bigInteger($name)->nullable(),
            'payload' => fn ($name) => $table->longText($name)->nullable(),
            'logged_at' => fn ($name) => $table->timestamp($name, 3)->nullable()->index(),
            'job_key' => fn ($name) => $table->char($name, 64)->nullable()->unique(),
            'created_at' => fn ($name) => $table->timestamp($name, 3)->nullable(),
            'updated_at' => fn ($name) => $table->timestamp($name, 3)->nullable(),
        ]);
        $this->table('machine_slots', fn (Blueprint $table) => [
            'id' => fn ($name) => $table->bigIncrements($name),
            'machine_id' => fn ($name) => $table->unsignedBigInteger($name),
            'slot_no' => fn ($name) => $table->bigInteger($name),
            'product_id' => fn ($name) => $table->string($name, 64)->nullable(),
            'stock' => fn ($name) => $table->bigInteger($name)->default(0),
            'created_at' => fn ($name) => $table->timestamp($name, 3)->nullable(),
            'updated_at' => fn ($name) => $table->timestamp($name, 3)->nullable(),
        ], ['machine_id', 'slot_no']);
        $this->table('transactions', fn (Blueprint $table) => [
            'id' => fn ($name) => $table->bigIncrements($name),
            'machine_id' => fn ($name) => $table->unsignedBigInteger($name),
            'transaction_id' => fn ($name) => $this->exact($table->string($name, 64)),
            'slot_no' => fn ($name) => $table->bigInteger($name)->nullable(),
            'amount' => fn ($name) => $table->decimal($name, 20, 6)->nullable(),
            'quantity' => fn ($name) => $table->bigInteger($name)->default(1),
            'product_id' => fn ($name) => $table->string($name, 64)->nullable(),
            'payment_type' => fn ($name) => $table->string($name, 64)->nullable(),
            'status' => fn ($name) => $table->string($name, 64)->nullable(),
            'payload' => fn ($name) => $table->longText($name)->nullable(),
            'sold_at' => fn ($name) => $table->timestamp($name, 3)->nullable()->index(),
            'created_at' => fn ($name) => $table->timestamp($name, 3)->nullable(),
            'updated_at' => fn ($name) => $table->timestamp($name, 3)->nullable(),
        ], ['machine_id', 'transaction_id']);
    }

    public function down(): void
    {
        // They hold what machines sold, and may have been there before: whoever wants them gone drops them by hand.
    }

    /**
     * @param Closure            $columns what makes each column
     * @param array<int, string> $unique  columns that are unique together
     */
    private function table(string $table, Closure $columns, array $unique = []): void
    {
        $tables = app(Tables::class);
        $schema = Schema::connection($tables->connection()->getName());
        $name = $tables->name($table);
        $isThere = $schema->hasTable($name);
        $known = config("sluicegate.database.columns.{$table}");
        $change = function (Blueprint $blueprint) use ($schema, $name, $known, $columns, $unique, $isThere): void {
            foreach ($columns($blueprint) as $column => $make) {
                // What the settings do not name the package does not use: only a table of its own gets it.
                $called = array_key_exists($column, $known) ? $known[$column] : ($isThere ? null : $column);
                if ($called !== null && ! ($isThere && $schema->hasColumn($name, $called))) {
                    $make($called);
                }
            }
            // Of a table that was there, docs/laravel.md says what must be unique: its rows may not be yet.
            if ($unique && ! $isThere) {
                $blueprint->unique(array_map(fn ($column) => $known[$column], $unique));
            }
        };
        $isThere ? $schema->table($name, $change) : $schema->create($name, $change);
    }

    /** "a" and "A" are two: to MySQL's usual collations they are one. */
    private function exact(ColumnDefinition $column): ColumnDefinition
    {
        $isMySql = in_array(app(Tables::class)->connection()->getDriverName(), ['mysql', 'mariadb'], true);

        return $isMySql ? $column->charset('utf8mb4')->collation('utf8mb4_bin') : $column;
    }
};
