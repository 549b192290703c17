<?php

namespace Sluicegate\Laravel\Tests;

use Carbon\CarbonImmutable;
use Illuminate\Support\Facades\DB;
use Sluicegate\Laravel\Commands\MqttCommandService;
use Sluicegate\Laravel\Facades\MqttCommand;
use Sluicegate\Laravel\Tests\Support\Wait;

/** From a machine to a row, and from the application to a machine: broker, gateway, Redis, mqtt:listen and database are real. */
final class WholeWayTest extends TestCase
{
    public function testAHeartbeatReachesTheRow(): void
    {
        $this->listen();
        $before = CarbonImmutable::now()->startOfSecond();
        $this->stage->publish('machine/M-001/heartbeat', '{"current_page":3,"temperature":25.5}');
        $row = Wait::until('the row is there', fn () => DB::table('machines')->where('serial_no', 'M-001')->whereNotNull('last_heard_at')->first());
        $heard = CarbonImmutable::parse($row->last_heard_at, 'America/New_York');
        self::assertTrue($heard->betweenIncluded($before, CarbonImmutable::now()), "{$row->last_heard_at} is not now");
        self::assertEquals(25.5, $row->temperature);
        self::assertEquals(3, $row->current_page);
        Wait::until('nothing is left in Redis', fn () => $this->redis->keys('*processing*') === [] && $this->redis->lLen('mqtt_incoming_jobs') === 0);
    }

    public function testAnErrorAndATransactionReachTheirRows(): void
    {
        $machine = DB::table('machines')->insertGetId(['serial_no' => 'M-002']);
        DB::table('machine_slots')->insert(['machine_id' => $machine, 'slot_no' => 5, 'stock' => 10]);
        $this->listen();
        $this->stage->publish('machine/M-002/error', '{"error_code":"E42","message":"jammed","slot_no":5,"level":"critical"}');
        $sale = '{"transaction_id":"T1","slot_no":5,"amount":"35.00","quantity":2,"payment_type":1,"status":"success","more":{}}';
        $this->stage->publish('machine/M-002/transaction', $sale);
        // The machine had no answer, and sends it again.
        $this->stage->publish('machine/M-002/transaction', $sale);
        Wait::until('all is done', fn () => $this->redis->lLen('mqtt_incoming_jobs') === 0
            && $this->redis->keys('*processing*') === [] && DB::table('transactions')->exists());
        $row = DB::table('transactions')->get()->sole();
        self::assertSame([$machine, 'T1', 5, '35.000000', 2, '1', 'success', $sale], [
            $row->machine_id, $row->transaction_id, $row->slot_no, $row->amount, $row->quantity, $row->payment_type, $row->status, $row->payload,
        ]);
        self::assertSame(8, DB::table('machine_slots')->value('stock'));
        $log = DB::table('machine_logs')->get()->sole();
        self::assertSame(['E42', 'jammed', 5, 'critical'], [$log->code, $log->message, $log->slot_no, $log->level]);
    }

    public function testARebootReachesTheMachine(): void
    {
        $machine = $this->keep($this->stage->machine('M-003'));
        $messageId = $this->app->make(MqttCommandService::class)->sendCommand('M-003', 'reboot', []);
        Wait::until('the command reaches the machine', fn () => str_contains($machine->log(), '"reboot"'));
        $line = '{"target":"M-003","command":"reboot","payload":[],"message_id":"' . $messageId . '"}';
        self::assertStringContainsString($line, $machine->log());
    }

    public function testWhatACommandCarriesStaysAsItIs(): void
    {
        $machine = $this->keep($this->stage->machine('M-004'));
        $payload = ['slot_no' => 5, 'transaction_id' => 'T/Ü', 'list' => [], 'object' => new \stdClass(), 'price' => 12.0];
        MqttCommand::sendCommand('M-004', 'dispense', $payload, 60);
        $written = '"payload":{"slot_no":5,"transaction_id":"T/Ü","list":[],"object":{},"price":12.0}';
        Wait::until('the command reaches the machine', fn () => str_contains($machine->log(), $written));
        config(['sluicegate.commands.empty_payload' => 'object']);
        $this->app->forgetInstance(MqttCommandService::class);
        $this->app->make(MqttCommandService::class)->sendCommand('M-004', 'sync_slots');
        Wait::until('the other one, too', fn () => str_contains($machine->log(), '"command":"sync_slots","payload":{}'));
    }

    public function testAKeyPrefixIsTheGatewaysAndNotLaravels(): void
    {
        $this->app->make(MqttCommandService::class)->sendCommand('NOBODY', 'reboot');
        // Nobody listens, so that the gateway keeps it under way.
        Wait::until('the gateway has it', fn () => $this->redis->keys('{mqtt_outgoing_commands}:processing:*') !== []);
        self::assertSame([], $this->redis->keys('laravel_database_*'));
        config(['sluicegate.redis.key_prefix' => 'shop_']);
        foreach ([MqttCommandService::class, \Sluicegate\Laravel\Redis\Keys::class] as $service) {
            $this->app->forgetInstance($service);
        }
        $this->app->make(MqttCommandService::class)->sendCommand('M-005', 'reboot');
        self::assertSame(1, $this->redis->lLen('shop_mqtt_outgoing_commands'));
    }
}
