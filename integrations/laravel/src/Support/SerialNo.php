<?php

namespace Sluicegate\Laravel\Support;

use Sluicegate\Laravel\Exceptions\InvalidCommand;

/** A machine's serial number is one level of a topic and its user name at the broker. */
final class SerialNo
{
    /** The longest, in characters. */
    public const MAX = 64;

    /**
     * Gives it back, where it is one.
     *
     * @throws InvalidCommand
     */
    public static function check(string $serialNo): string
    {
        $length = mb_strlen($serialNo, 'UTF-8');
        if (! mb_check_encoding($serialNo, 'UTF-8') || $length < 1 || $length > self::MAX) {
            throw new InvalidCommand('a serial number must have 1 to ' . self::MAX . ' characters of UTF-8');
        }
        // Controls, and what turns or hides text: two machines could look the same to people.
        if (preg_match('/[+#\/]|\p{Cc}|\p{Cf}|\p{Zl}|\p{Zp}/u', $serialNo) || $serialNo[0] === '$') {
            throw new InvalidCommand(
                'the serial number `' . addcslashes($serialNo, "\0..\37\177")
                . '` must not begin with $ or hold +, #, / or control characters: it is a level of a topic'
            );
        }

        return $serialNo;
    }
}
