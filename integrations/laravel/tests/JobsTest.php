<?php

namespace Sluicegate\Laravel\Tests;

use Illuminate\Contracts\Bus\Dispatcher;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Event;
use Sluicegate\Laravel\Events\MachineErrorReported;
use Sluicegate\Laravel\Events\StockDiscrepancyFound;
use Sluicegate\Laravel\Exceptions\MalformedMessage;
use Sluicegate\Laravel\Jobs\ProcessTransactionJob;
use Sluicegate\Laravel\Message;

/** What the jobs do to the database, however often and in whatever order they come. */
final class JobsTest extends TestCase
{
    public function testAnOlderHeartbeatNeverOverwritesANewerOne(): void
    {
        $at = fn (int $second): string => sprintf('2026-04-14T09:00:%02d+08:00', $second);
        $this->do('heartbeat', '{"temperature":5.0,"current_page":1}', $at(5));
        $this->do('heartbeat', '{"temperature":9.25}', $at(9));
        $this->do('heartbeat', '{"temperature":7.0,"current_page":7}', $at(7));
        $row = DB::table('machines')->get()->sole();
        // 09:00:09 in +08:00 is 21:00:09 of the day before where the application is.
        self::assertSame(['2026-04-13 21:00:09.000', '9.250', 1], [$row->last_heard_at, $row->temperature, $row->current_page]);
        // Of one second the later one is newer.
        $this->do('heartbeat', '{"current_page":2,"temperature":null}', $at(9));
        $row = DB::table('machines')->get()->sole();
        self::assertSame(['9.250', 2], [$row->temperature, $row->current_page]);
        // The same moment, written otherwise, and one of a second before.
        $this->do('heartbeat', '{"current_page":3}', '2026-04-14T01:00:09Z');
        $this->do('heartbeat', '{"current_page":4}', '2026-04-14T01:00:08.999Z');
        self::assertSame(3, DB::table('machines')->value('current_page'));
    }

    public function testATransactionIsOneRowAndTakesItsStockOnce(): void
    {
        $machine = DB::table('machines')->insertGetId(['serial_no' => 'M-1']);
        DB::table('machine_slots')->insert([
            ['machine_id' => $machine, 'slot_no' => 5, 'stock' => 3],
            ['machine_id' => $machine, 'slot_no' => 6, 'stock' => 3],
        ]);
        $sale = '{"transaction_id":"T1","slot_no":5,"amount":12.30,"quantity":2}';
        $this->do('transaction', $sale, '2026-04-14T09:00:00+08:00');
        // Again, later: the gateway got it a second time.
        $this->do('transaction', $sale, '2026-04-14T09:05:00+08:00');
        self::assertSame([['T1', '12.300000']], $this->sales());
        self::assertSame([3 - 2, 3], DB::table('machine_slots')->orderBy('slot_no')->pluck('stock')->all());
        self::assertSame(0, DB::table('machine_logs')->count());
        // The number is the machine's own.
        $this->do('transaction', $sale, serialNo: 'M-2');
        self::assertSame(2, DB::table('transactions')->count());
        // "t1" is another than "T1".
        $this->do('transaction', '{"transaction_id":"t1","slot_no":6,"amount":"0.000001"}');
        self::assertSame(2, DB::table('machine_slots')->where('slot_no', 6)->value('stock'));
    }

    public function testWhatWasSoldBeyondTheStockIsKeptAndSaid(): void
    {
        Event::fake([StockDiscrepancyFound::class]);
        $machine = DB::table('machines')->insertGetId(['serial_no' => 'M-1']);
        DB::table('machine_slots')->insert(['machine_id' => $machine, 'slot_no' => 5, 'stock' => 1]);
        foreach ([1, 2] as $ignored) {
            $this->do('transaction', '{"transaction_id":"T1","slot_no":5,"amount":1,"quantity":3}');
            $this->do('transaction', '{"transaction_id":"T2","slot_no":9,"amount":1}');
        }
        self::assertSame([['T1', '1.000000'], ['T2', '1.000000']], $this->sales());
        self::assertSame(0, DB::table('machine_slots')->value('stock'));
        $logs = DB::table('machine_logs')->orderBy('id')->get(['code', 'level', 'slot_no', 'payload'])->map(fn ($row) => (array) $row);
        self::assertSame([
            ['code' => 'stock-short', 'level' => 'warning', 'slot_no' => 5, 'payload' => '{"transaction_id":"T1","slot_no":5,"quantity":3,"stock":1}'],
            ['code' => 'slot-unknown', 'level' => 'warning', 'slot_no' => 9, 'payload' => '{"transaction_id":"T2","slot_no":9,"quantity":1,"stock":null}'],
        ], $logs->all());
        Event::assertDispatchedTimes(StockDiscrepancyFound::class, 2);
    }

    public function testASaleThatFailedTakesNothing(): void
    {
        config(['sluicegate.database.keeps_stock' => ['failed']]);
        $machine = DB::table('machines')->insertGetId(['serial_no' => 'M-1']);
        DB::table('machine_slots')->insert(['machine_id' => $machine, 'slot_no' => 5, 'stock' => 4]);
        $this->do('transaction', '{"transaction_id":"T1","slot_no":5,"amount":1,"status":"failed"}');
        $this->do('transaction', '{"transaction_id":"T2","slot_no":5,"amount":1,"status":"success"}');
        self::assertSame(3, DB::table('machine_slots')->value('stock'));
        self::assertSame(2, DB::table('transactions')->count());
    }

    public function testAnErrorIsOneRowHoweverOftenItIsDone(): void
    {
        Event::fake([MachineErrorReported::class]);
        foreach (['2026-04-14T09:00:00Z', '2026-04-14T09:00:01Z'] as $at) {
            // The machine's own id, sent again a second later; the same without one is another.
            $this->do('error', '{"error_code":42,"message_id":"X-1","message":"jammed"}', $at);
            $this->do('error', '{"error_code":"E7","level":"warning","slot_no":3}', $at);
            $this->do('error', '{"error_code":"E7","level":"warning","slot_no":3}', $at);
        }
        $rows = DB::table('machine_logs')->orderBy('id')->get(['code', 'level', 'message', 'slot_no', 'payload'])->map(fn ($row) => array_values((array) $row));
        $second = ['E7', 'warning', '', 3, '{"error_code":"E7","level":"warning","slot_no":3}'];
        $first = ['42', 'error', 'jammed', null, '{"error_code":42,"message_id":"X-1","message":"jammed"}'];
        self::assertSame([$first, $second, $second], $rows->all());
        Event::assertDispatchedTimes(MachineErrorReported::class, 3);
    }

    /** @dataProvider wrong */
    public function testWhatIsWrongInItselfIsSaidWithItsField(string $type, string $payload, string $reason): void
    {
        $this->expectException(MalformedMessage::class);
        $this->expectExceptionMessage($reason);
        $this->do($type, $payload);
    }

    /** @return array<int, array{string, string, string}> */
    public function wrong(): array
    {
        return [
            ['heartbeat', '[]', 'payload: it must be an object'],
            ['heartbeat', '{"temperature":"warm"}', '`temperature` is "warm"; it must be a number'],
            ['heartbeat', '{"current_page":-1}', '`current_page` is -1'],
            ['error', '{}', '`error_code` is missing'],
            ['error', '{"error_code":{}}', '`error_code` is {}'],
            ['transaction', '{"transaction_id":"T","slot_no":1}', '`amount` is missing'],
            ['transaction', '{"transaction_id":"","slot_no":1,"amount":1}', '`transaction_id` is ""'],
            ['transaction', '{"transaction_id":"T","slot_no":"1","amount":1}', '`slot_no` is "1"'],
            ['transaction', '{"transaction_id":"T","slot_no":1,"amount":"1; DROP"}', '`amount` is "1; DROP"'],
        ];
    }

    public function testWhatCameByHttpIsDoneAsWhatCameByMqtt(): void
    {
        $payload = '{"transaction_id":"T1","slot_no":5,"amount":"2.50"}';
        // As docs/laravel.md says; it goes through the queue's own serializer.
        $key = hash('sha256', $payload);
        ProcessTransactionJob::dispatchSync(
            new Message('transaction', 'M-1', $payload, now()->toRfc3339String(), $key)
        );
        self::assertSame([['T1', '2.500000']], $this->sales());
        $this->do('transaction', $payload);
        self::assertSame(1, DB::table('transactions')->count());
    }

    public function testAMachineWithoutARowIsTheSettingsToJudge(): void
    {
        $this->do('heartbeat', '{}', serialNo: 'NEW');
        self::assertSame(['NEW'], DB::table('machines')->pluck('serial_no')->all());
        config(['sluicegate.listener.unknown_machines' => 'dead-letter']);
        $this->expectExceptionMessage('no machine has the serial number `OTHER`');
        $this->do('heartbeat', '{}', serialNo: 'OTHER');
    }

    private function do(string $type, string $payload, string $at = '2026-04-14T09:00:00+08:00', string $serialNo = 'M-1'): void
    {
        $class = config("sluicegate.jobs.{$type}");
        $this->app->make(Dispatcher::class)->dispatchNow(new $class(Message::parse(self::entry($type, $serialNo, $payload, $at))));
    }

    /** @return array<int, array<int, mixed>> */
    private function sales(): array
    {
        return DB::table('transactions')->orderBy('id')->get(['transaction_id', 'amount'])->map(fn ($row) => array_values((array) $row))->all();
    }
}
