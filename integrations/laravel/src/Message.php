<?php

namespace Sluicegate\Laravel;

use Carbon\CarbonImmutable;
use JsonException;
use Sluicegate\Laravel\Exceptions\MalformedMessage;
use stdClass;
use Throwable;

/**
 * What a machine sent, as the gateway put it into the list: its envelope.
 *
 * It holds scalars only, so that it goes through any queue unchanged.
 */
final class Message
{
    /** How many levels a payload may have: more than the gateway lets pass. */
    private const DEPTH = 128;

    /**
     * @param string $type       the route's
     * @param string $serialNo   the machine's, from the topic
     * @param string $payload    JSON, byte for byte as it came where that can be told
     * @param string $receivedAt RFC 3339
     * @param string $key        the same for the same entry of the list
     */
    public function __construct(
        public string $type,
        public string $serialNo,
        public string $payload,
        public string $receivedAt,
        public string $key
    ) {
    }

    /**
     * Reads an entry of the list.
     *
     * @throws MalformedMessage it is no envelope, and never will be
     */
    public static function parse(string $entry): self
    {
        try {
            $envelope = json_decode($entry, false, self::DEPTH, JSON_THROW_ON_ERROR | JSON_BIGINT_AS_STRING);
        } catch (JsonException $exception) {
            throw new MalformedMessage('not JSON: ' . $exception->getMessage());
        }
        if (! $envelope instanceof stdClass) {
            throw new MalformedMessage('not a job: it must be an object with type, serial_no, payload and received_at');
        }
        foreach (['type', 'serial_no', 'received_at'] as $field) {
            if (! isset($envelope->$field) || ! is_string($envelope->$field) || $envelope->$field === '') {
                throw new MalformedMessage("not a job: `{$field}` must be a string that is not empty");
            }
        }
        if (! property_exists($envelope, 'payload')) {
            throw new MalformedMessage('not a job: `payload` is missing');
        }
        $message = new self(
            $envelope->type,
            $envelope->serial_no,
            self::payloadOf($entry, $envelope->payload),
            $envelope->received_at,
            hash('sha256', $entry)
        );
        $message->receivedAt();

        return $message;
    }

    /**
     * The payload's fields.
     *
     * @return array<string, mixed>
     *
     * @throws MalformedMessage it is no object
     */
    public function fields(): array
    {
        // A whole number that PHP's own cannot hold stays its digits.
        $fields = json_decode($this->payload, false, self::DEPTH, JSON_BIGINT_AS_STRING);
        if (! $fields instanceof stdClass) {
            throw new MalformedMessage('payload: it must be an object');
        }

        return get_object_vars($fields);
    }

    /**
     * When the gateway received it.
     *
     * @throws MalformedMessage
     */
    public function receivedAt(): CarbonImmutable
    {
        // What Carbon would also take ("tomorrow") is no time of a message.
        if (preg_match('/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/i', $this->receivedAt)) {
            try {
                return CarbonImmutable::parse($this->receivedAt);
            } catch (Throwable) {
                // Said below.
            }
        }
        $found = mb_substr($this->receivedAt, 0, 64);
        throw new MalformedMessage("`received_at` is `{$found}`; it must be a time such as 2026-04-14T09:00:00+08:00");
    }

    /**
     * When the machine was heard. A time from a clock that is wrong would hold off every heartbeat until it is over: it
     * counts as now.
     *
     * @throws MalformedMessage
     */
    public function heardAt(): CarbonImmutable
    {
        [$receivedAt, $now] = [$this->receivedAt(), CarbonImmutable::now()];

        return $receivedAt->greaterThan($now->addMinute()) ? $now : $receivedAt;
    }

    /**
     * The payload's own text. PHP would write 12.30 as 12.3 and `{ }` as `{}`: so it is cut out, and only where the
     * entry is not written as the gateway writes it, written anew.
     */
    private static function payloadOf(string $entry, mixed $payload): string
    {
        // Inside a string each quote has a backslash before it, so neither mark can begin in one that comes before it.
        $start = strpos($entry, ',"payload":');
        $end = strrpos($entry, ',"received_at":"');
        if ($start !== false && $end !== false) {
            $start += strlen(',"payload":');
            $text = substr($entry, $start, max(0, $end - $start));
            $read = json_decode($text, false, self::DEPTH, JSON_BIGINT_AS_STRING);
            if (json_last_error() === JSON_ERROR_NONE && $read == $payload) {
                return $text;
            }
        }

        return json_encode(
            $payload,
            JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_PRESERVE_ZERO_FRACTION
        );
    }
}
