<?php

namespace Sluicegate\Laravel\Tests;

use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Schema;
use Sluicegate\Laravel\Commands\MqttCommandService;
use Sluicegate\Laravel\Exceptions\InvalidCommand;
use Sluicegate\Laravel\Facades\MqttCommand;

/** The package in an application that has tables and tests of its own. */
final class ApplicationTest extends TestCase
{
    protected function prepareDatabase(): void
    {
        DB::statement('CREATE TABLE machines (id bigint unsigned AUTO_INCREMENT PRIMARY KEY, serial_no varchar(32) UNIQUE, shop varchar(32))');
        DB::table('machines')->insert(['serial_no' => 'M-1', 'shop' => 'Kaohsiung']);
    }

    public function testATableThatIsThereGetsWhatItLacksAndKeepsTheRest(): void
    {
        self::assertTrue(Schema::hasColumns('machines', ['last_heard_at', 'temperature', 'current_page', 'api_token_hash', 'created_at']));
        self::assertSame('Kaohsiung', DB::table('machines')->value('shop'));
        self::assertTrue(Schema::hasTable('transactions'));
        $this->artisan('migrate:rollback', ['--force' => true]);
        self::assertSame('Kaohsiung', DB::table('machines')->value('shop'));
    }

    public function testSettingsArePublished(): void
    {
        $this->artisan('vendor:publish', ['--tag' => 'sluicegate-config']);
        self::assertSame('mqtt_incoming_jobs', (require $this->application() . '/config/sluicegate.php')['queues']['incoming']);
    }

    public function testAnApplicationsTestsSendNothing(): void
    {
        MqttCommand::fake();
        MqttCommand::assertNothingSent();
        // Injected or by the facade: it is the same one.
        $this->app->make(MqttCommandService::class)->sendCommand('M-1', 'unlock', ['slot_no' => 3]);
        MqttCommand::assertSent('M-1', 'unlock', fn (array $command) => $command['payload'] === ['slot_no' => 3]);
        // The gateway would have had it at once, and kept it, since nobody listens.
        self::assertSame(0, $this->redis->lLen('mqtt_outgoing_commands'));
        self::assertSame([], $this->redis->keys('{mqtt_outgoing_commands}:processing:*'));
    }

    public function testACommandThatTheGatewayWouldRefuseIsRefusedHere(): void
    {
        $wrong = [
            ['a/b', 'reboot', [], null], ['', 'reboot', [], null], ['M-1', '', [], null],
            ['M-1', 'reboot', ["\xff"], null], ['M-1', 'reboot', [], 0],
        ];
        // It checks as the service does.
        MqttCommand::fake();
        foreach ($wrong as $arguments) {
            try {
                MqttCommand::sendCommand(...$arguments);
                self::fail('it was taken: ' . print_r($arguments, true));
            } catch (InvalidCommand $exception) {
                self::assertNotSame('', $exception->getMessage());
            }
        }
        MqttCommand::assertNothingSent();
    }
}
