<?php

namespace Sluicegate\Laravel\Events;

use Carbon\CarbonImmutable;

/** A machine told of an error that was not told before; its row is committed. */
final class MachineErrorReported
{
    /**
     * @param string $level info, warning, error or critical
     */
    public function __construct(
        public string $serialNo,
        public string $code,
        public string $level,
        public string $message,
        public ?int $slotNo,
        public CarbonImmutable $receivedAt
    ) {
    }
}
