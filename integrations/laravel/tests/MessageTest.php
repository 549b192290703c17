<?php

namespace Sluicegate\Laravel\Tests;

use Carbon\CarbonImmutable;
use PHPUnit\Framework\TestCase;
use Sluicegate\Laravel\Exceptions\InvalidCommand;
use Sluicegate\Laravel\Exceptions\MalformedMessage;
use Sluicegate\Laravel\Message;
use Sluicegate\Laravel\Support\SerialNo;

final class MessageTest extends TestCase
{
    /** @dataProvider payloads */
    public function testAPayloadStaysByteForByte(string $payload): void
    {
        $entry = '{"type":"heartbeat","serial_no":"M,\"payload\":1","payload":' . $payload
            . ',"received_at":"2026-04-14T09:00:00+08:00"}';
        $message = Message::parse($entry);
        self::assertSame($payload, $message->payload);
        self::assertSame('M,"payload":1', $message->serialNo);
        self::assertSame(1776128400, $message->receivedAt()->getTimestamp());
    }

    /** @return array<int, array{string}> */
    public function payloads(): array
    {
        return [
            ['{}'], ['[]'], ['{"a":{},"b":[],"c":12.30,"d":1e2,"e":18446744073709551616}'], ['{ "x" : "\u00fc" }'],
            ['{"payload":{"received_at":"2026"},"received_at":"2026-01-01T00:00:00Z"}'], ['"text"'], ['null'],
        ];
    }

    public function testAnEntryThatIsWrittenOtherwiseKeepsItsMeaning(): void
    {
        $message = Message::parse('{"received_at" : "2026-04-14T01:00:00Z", "payload" : {"a": {}, "b": []}, "serial_no":"M", "type":"x"}');
        self::assertSame('{"a":{},"b":[]}', $message->payload);
    }

    public function testATimeFromAClockThatIsWrongIsNow(): void
    {
        $now = CarbonImmutable::parse('2026-04-14T09:00:00Z');
        CarbonImmutable::setTestNow($now);
        $heardAt = fn (string $at) => Message::parse(
            '{"type":"heartbeat","serial_no":"M","payload":{},"received_at":"' . $at . '"}'
        )->heardAt()->toIso8601ZuluString();
        try {
            self::assertSame('2026-04-14T09:00:00Z', $heardAt('2027-04-14T09:00:00Z'));
            self::assertSame('2026-04-14T09:01:00Z', $heardAt('2026-04-14T09:01:00Z'));
            self::assertSame('2026-04-13T09:00:00Z', $heardAt('2026-04-13T09:00:00Z'));
        } finally {
            CarbonImmutable::setTestNow();
        }
    }

    /** @dataProvider malformed */
    public function testWhatIsNoJobIsRefusedWithTheReason(string $entry, string $reason): void
    {
        $this->expectException(MalformedMessage::class);
        $this->expectExceptionMessage($reason);
        Message::parse($entry);
    }

    /** @return array<int, array{string, string}> */
    public function malformed(): array
    {
        return [
            ['', 'not JSON'], ["\xff", 'not JSON'], ['[]', 'must be an object'], ['7', 'must be an object'],
            ['{"type":"x","serial_no":5,"payload":{},"received_at":"2026-04-14T01:00:00Z"}', '`serial_no` must be a string'],
            ['{"type":"x","serial_no":"M","received_at":"2026-04-14T01:00:00Z"}', '`payload` is missing'],
            ['{"type":"x","serial_no":"M","payload":{},"received_at":"tomorrow"}', '`received_at` is `tomorrow`'],
            ['{"type":"x","serial_no":"M","payload":{},"received_at":"2026-99-99T99:99:99Z"}', '`received_at` is'],
        ];
    }

    public function testASerialNumberIsOneLevelOfATopic(): void
    {
        foreach (['M-001', 'Ü', str_repeat('x', 64)] as $good) {
            self::assertSame($good, SerialNo::check($good));
        }
        foreach (['', 'a/b', '+', 'a#', "a\0", "a\n", '$SYS', str_repeat('x', 65), "\xff"] as $bad) {
            try {
                SerialNo::check($bad);
                self::fail("`{$bad}` was taken");
            } catch (InvalidCommand $exception) {
                self::assertStringContainsString('serial number', $exception->getMessage());
            }
        }
    }
}
