<?php

namespace Sluicegate\Laravel\Facades;

use Illuminate\Support\Facades\Facade;
use Sluicegate\Laravel\Commands\MqttCommandService;
use Sluicegate\Laravel\Testing\MqttCommandFake;

/**
 * @method static string sendCommand(string $serialNo, string $command, array $payload = [], ?int $expiresIn = null)
 * @method static void assertSent(string $serialNo, string $command, ?callable $that = null)
 * @method static void assertNothingSent()
 *
 * @see MqttCommandService
 */
class MqttCommand extends Facade
{
    /** For tests: commands are noted, and not sent. */
    public static function fake(): MqttCommandFake
    {
        $fake = static::getFacadeApplication()->make(MqttCommandFake::class, [
            'settings' => static::getFacadeApplication()->make('config')->get('sluicegate'),
        ]);
        // For whoever has the service injected, too.
        static::swap($fake);

        return $fake;
    }

    protected static function getFacadeAccessor(): string
    {
        return MqttCommandService::class;
    }
}
