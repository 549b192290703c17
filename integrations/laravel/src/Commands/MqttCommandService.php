<?php

namespace Sluicegate\Laravel\Commands;

use Illuminate\Support\Str;
use JsonException;
use Sluicegate\Laravel\Exceptions\InvalidCommand;
use Sluicegate\Laravel\Exceptions\RedisUnavailable;
use Sluicegate\Laravel\Redis\Connections;
use Sluicegate\Laravel\Redis\Keys;
use Sluicegate\Laravel\Support\SerialNo;

/** Sends commands to machines: puts them into the gateway's list. */
class MqttCommandService
{
    /** The longest name of a command, in characters. */
    private const MAX_NAME = 128;

    private const JSON =
        JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_PRESERVE_ZERO_FRACTION;

    /**
     * @param array<string, mixed> $settings of config/sluicegate.php
     */
    public function __construct(private Connections $redis, private Keys $keys, private array $settings)
    {
    }

    /**
     * Sends a machine a command, and gives back its message_id: once this returns, the gateway's list has it.
     *
     * What PHP does not tell apart stays as it is: [] is an empty list; `new \stdClass()` is an empty object.
     *
     * @param string               $serialNo  of the machine
     * @param string               $command   one that the gateway's validator takes, e.g. "reboot"
     * @param array<string, mixed> $payload   what goes with it
     * @param int|null             $expiresIn seconds after which it is not sent any more, from now; null: the gateway's
     *                                        setting says
     *
     * @throws InvalidCommand   nothing is sent
     * @throws RedisUnavailable it may have been sent, and another try is another command
     */
    public function sendCommand(string $serialNo, string $command, array $payload = [], ?int $expiresIn = null): string
    {
        SerialNo::check($serialNo);
        $length = mb_strlen($command, 'UTF-8');
        if ($length < 1 || $length > self::MAX_NAME) {
            throw new InvalidCommand('a command\'s name must have 1 to ' . self::MAX_NAME . ' characters');
        }
        if ($expiresIn !== null && $expiresIn < 1) {
            throw new InvalidCommand("a command cannot expire in {$expiresIn} seconds; it must be at least 1");
        }
        $messageId = self::messageId();
        $asObject = $payload === [] && $this->settings['commands']['empty_payload'] === 'object';
        $entry = [
            'target' => $serialNo,
            'command' => $command,
            'payload' => $asObject ? (object) [] : $payload,
            'message_id' => $messageId,
        ];
        if ($expiresIn !== null) {
            // A time, and no span: while the gateway is away it goes on.
            $entry['expires_at'] = time() + $expiresIn;
        }
        try {
            $text = json_encode($entry, self::JSON);
        } catch (JsonException $exception) {
            throw new InvalidCommand("the payload is no JSON: {$exception->getMessage()}", 0, $exception);
        }
        $this->push($text);

        return $messageId;
    }

    /** @throws RedisUnavailable */
    protected function push(string $entry): void
    {
        $this->redis->call(['RPUSH', $this->keys->outgoing, $entry]);
    }

    /** Ids that sort by their time. */
    private static function messageId(): string
    {
        // Laravel has ULIDs since its version 9.
        return (string) (method_exists(Str::class, 'ulid') ? Str::ulid() : Str::orderedUuid());
    }
}
