<?php

namespace Sluicegate\Laravel\Support;

use Sluicegate\Laravel\Exceptions\MalformedMessage;
use Sluicegate\Laravel\Message;

/** Reads the fields of a payload; what is wrong is said with the field's name. A field that is null is not there. */
final class Fields
{
    /** @var array<string, mixed> */
    private array $fields;

    /** @throws MalformedMessage */
    public function __construct(Message $message)
    {
        $this->fields = $message->fields();
    }

    /** @throws MalformedMessage */
    public function integer(string $name, int $least): ?int
    {
        $value = $this->fields[$name] ?? null;
        if ($value === null || is_int($value) && $value >= $least) {
            return $value;
        }
        throw $this->wrong($name, "an integer from {$least} to " . PHP_INT_MAX);
    }

    /**
     * A number, as the decimal text that the database keeps exactly; also where it was written as a string.
     *
     * @throws MalformedMessage
     */
    public function decimal(string $name, bool $orText = false): ?string
    {
        $value = $this->fields[$name] ?? null;
        if ($value === null) {
            return null;
        }
        // The shortest text that is the same number: what the machine wrote, up to 15 digits.
        $text = is_string($value) ? $value : json_encode($value);
        $isNumber = is_int($value) || is_float($value) || $orText && is_string($value);
        if ($isNumber && preg_match('/^-?\d+(\.\d+)?([eE][+-]?\d{1,3})?$/D', (string) $text)) {
            return (string) $text;
        }
        throw $this->wrong($name, $orText ? 'a number, or the same as a string' : 'a number');
    }

    /**
     * A string, or an integer as its digits.
     *
     * @throws MalformedMessage
     */
    public function word(string $name, int $longest, int $least = 0): ?string
    {
        $value = $this->fields[$name] ?? null;
        if ($value === null) {
            return null;
        }
        $length = is_int($value) || is_string($value) ? mb_strlen((string) $value) : -1;
        if ($length >= $least && $length <= $longest) {
            return (string) $value;
        }
        throw $this->wrong($name, "a string of {$least} to {$longest} characters, or an integer");
    }

    /** @throws MalformedMessage */
    public function text(string $name): ?string
    {
        $value = $this->fields[$name] ?? null;
        if ($value === null || is_string($value)) {
            return $value;
        }
        throw $this->wrong($name, 'a string');
    }

    /**
     * @template T
     *
     * @param T|null $value
     *
     * @return T
     *
     * @throws MalformedMessage
     */
    public function required(string $name, mixed $value): mixed
    {
        return $value ?? throw new MalformedMessage("`{$name}` is missing; it must be there");
    }

    private function wrong(string $name, string $must): MalformedMessage
    {
        $found = (string) json_encode($this->fields[$name], JSON_UNESCAPED_UNICODE | JSON_PARTIAL_OUTPUT_ON_ERROR);

        return new MalformedMessage("`{$name}` is " . mb_substr($found, 0, 64) . "; it must be {$must}");
    }
}
