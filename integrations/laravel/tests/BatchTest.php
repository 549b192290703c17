<?php

namespace Sluicegate\Laravel\Tests;

use Illuminate\Contracts\Events\Dispatcher as Events;
use Illuminate\Support\Facades\DB;
use RuntimeException;
use Sluicegate\Laravel\Events\MachineErrorReported;
use Sluicegate\Laravel\Events\StockDiscrepancyFound;
use Sluicegate\Laravel\Jobs\MachineJob;
use Sluicegate\Laravel\Jobs\ProcessHeartbeatJob;
use Sluicegate\Laravel\Listener\Batch;
use Sluicegate\Laravel\Message;
use Throwable;

/** Many jobs in one transaction come to the same as one after the other; who fails takes nobody with it, and nobody is told too early. */
final class BatchTest extends TestCase
{
    public function testHeartbeatsInOneStatementComeToTheSameAsOneAfterTheOther(): void
    {
        $seed = random_int(0, PHP_INT_MAX >> 32);
        mt_srand($seed);
        foreach (range(1, 25) as $round) {
            $beat = function (): string {
                $fields = array_filter([
                    'temperature' => mt_rand(0, 1) ? mt_rand(0, 90) / 2 : null,
                    'current_page' => mt_rand(0, 1) ? mt_rand(0, 9) : null,
                ], fn ($value) => $value !== null);
                $at = sprintf('2026-04-14T09:00:%02d.%d+08:00', mt_rand(0, 3), mt_rand(0, 1) * 5);

                return self::entry('heartbeat', 'M-' . mt_rand(1, 3), json_encode((object) $fields), $at);
            };
            [$first, $entries] = [array_map($beat, range(1, 3)), array_map($beat, range(1, 12))];
            $rows = [];
            foreach ([false, true] as $together) {
                DB::table('machines')->delete();
                $this->oneByOne($first);
                $together ? $this->together($entries) : $this->oneByOne($entries);
                $rows[] = DB::table('machines')->orderBy('serial_no')
                    ->get(['serial_no', 'last_heard_at', 'temperature', 'current_page'])->map(fn ($row) => (array) $row)->all();
            }
            self::assertSame($rows[0], $rows[1], "seed {$seed}, round {$round}: " . implode(' ', [...$first, '|', ...$entries]));
        }
    }

    public function testNobodyIsToldBeforeTheCommitNorOfWhatWasRolledBack(): void
    {
        $told = [];
        foreach ([MachineErrorReported::class, StockDiscrepancyFound::class] as $event) {
            $this->app->make(Events::class)->listen($event, function ($event) use (&$told): void {
                $told[] = [get_class($event), DB::transactionLevel()];
            });
        }
        $error = self::entry('error', 'M-1', '{"error_code":"E1"}');
        $sale = fn (string $amount) => self::entry('transaction', 'M-1', "{\"transaction_id\":\"T1\",\"slot_no\":9,\"amount\":{$amount}}");
        try {
            $this->together([$error, $sale('1e20')]);
            self::fail('the database takes no such amount');
        } catch (Throwable $failure) {
            self::assertStringContainsString('Out of range', $failure->getMessage());
        }
        self::assertSame([[], 0, 0], [$told, DB::table('machine_logs')->count(), DB::table('machines')->count()]);
        self::assertSame([], $this->together([$error, $sale('1')]));
        self::assertSame([[MachineErrorReported::class, 0], [StockDiscrepancyFound::class, 0]], $told);
        // Again: nobody is told twice.
        $this->together([$error, $sale('1')]);
        self::assertCount(2, $told);
    }

    public function testAListenerOfTheApplicationsThatFailsKeepsNoOtherFromBeingTold(): void
    {
        $told = [];
        $this->app->make(Events::class)->listen(MachineErrorReported::class, function ($event) use (&$told): void {
            $told[] = $event->code;
            if ($event->code === 'E1') {
                throw new RuntimeException('the pager is away');
            }
        });
        self::assertSame([], $this->together([
            self::entry('error', 'M-1', '{"error_code":"E1"}'),
            self::entry('error', 'M-1', '{"error_code":"E2"}'),
        ]));
        self::assertSame(['E1', 'E2'], $told);
        self::assertStringContainsString('the pager is away', $this->log());
    }

    public function testWhatCanNeverBeDoneIsNamedAndTheOthersAreDone(): void
    {
        config(['sluicegate.listener.unknown_machines' => 'dead-letter']);
        DB::table('machines')->insert(['serial_no' => 'M-1']);
        $wrong = $this->together([
            self::entry('heartbeat', 'M-404', '{}'),
            'not JSON',
            self::entry('heartbeat', 'M-1', '{"current_page":-1}'),
            self::entry('heartbeat', 'M-1', '{"current_page":5}'),
            self::entry('transaction', 'M-1', '{"transaction_id":"T1","slot_no":1}'),
        ]);
        ksort($wrong);
        self::assertSame([0, 1, 2, 4], array_keys($wrong));
        self::assertSame('no machine has the serial number `M-404`', $wrong[0]);
        self::assertStringContainsString('`amount` is missing', $wrong[4]);
        self::assertSame(5, DB::table('machines')->value('current_page'));
    }

    public function testAJobOfTheApplicationsIsDoneAloneInItsTurn(): void
    {
        $own = new class (new Message('own', 'M-1', '{}', '2026-04-14T09:00:00Z', '')) extends MachineJob {
        };
        config(['sluicegate.jobs' => ['heartbeat' => ProcessHeartbeatJob::class, 'own' => get_class($own)]]);
        $beat = self::entry('heartbeat', 'M-1', '{}');
        $read = fn (array $entries): int => count($this->app->make(Batch::class)->read($entries));
        self::assertSame(2, $read([$beat, $beat, self::entry('own', 'M-1', '{}'), $beat]));
        self::assertSame(0, $read([self::entry('own', 'M-1', '{}'), $beat]));
        self::assertSame(1, $read([$beat, self::entry('greeting', 'M-1', '{}')]));
    }

    /** @param array<int, string> $entries */
    private function oneByOne(array $entries): void
    {
        foreach ($entries as $entry) {
            ProcessHeartbeatJob::dispatchNow(Message::parse($entry));
        }
    }

    /**
     * @param array<int, string> $entries
     *
     * @return array<int, string>
     */
    private function together(array $entries): array
    {
        $batch = $this->app->make(Batch::class);
        $read = $batch->read($entries);
        self::assertCount(count($entries), $read);

        return $batch->work($read);
    }
}
