<?php

namespace Sluicegate\Laravel\Testing;

use PHPUnit\Framework\Assert;
use Sluicegate\Laravel\Commands\MqttCommandService;

/** Takes commands as the service does, and sends none. `MqttCommand::fake()` puts it in the service's place. */
class MqttCommandFake extends MqttCommandService
{
    /** @var array<int, array<string, mixed>> as the machines would get them */
    private array $sent = [];

    /**
     * What was sent, to one machine or to all.
     *
     * @return array<int, array<string, mixed>>
     */
    public function sent(?string $serialNo = null): array
    {
        $of = fn (array $command): bool => $serialNo === null || $command['target'] === $serialNo;

        return array_values(array_filter($this->sent, $of));
    }

    /**
     * @param callable(array<string, mixed>): bool|null $that what else must be so
     */
    public function assertSent(string $serialNo, string $command, ?callable $that = null): void
    {
        $is = fn (array $sent): bool => $sent['command'] === $command && (! $that || $that($sent));
        $sent = json_encode($this->sent);
        Assert::assertNotEmpty(
            array_filter($this->sent($serialNo), $is),
            "No command `{$command}` was sent to {$serialNo}; sent were: {$sent}"
        );
    }

    public function assertNothingSent(): void
    {
        Assert::assertSame([], $this->sent, 'Commands were sent.');
    }

    protected function push(string $entry): void
    {
        $this->sent[] = json_decode($entry, true, 512, JSON_THROW_ON_ERROR);
    }
}
