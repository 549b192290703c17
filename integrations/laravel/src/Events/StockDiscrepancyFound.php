<?php

namespace Sluicegate\Laravel\Events;

/** A machine sold what its slot did not hold; the transaction and a row of the log are committed. */
final class StockDiscrepancyFound
{
    /**
     * @param string   $code  slot-unknown or stock-short
     * @param int|null $stock what the slot held before; null: there is no such slot
     */
    public function __construct(
        public string $serialNo,
        public string $code,
        public string $message,
        public string $transactionId,
        public int $slotNo,
        public int $quantity,
        public ?int $stock
    ) {
    }

    /** @return array<string, int|string|null> */
    public function details(): array
    {
        return [
            'transaction_id' => $this->transactionId,
            'slot_no' => $this->slotNo,
            'quantity' => $this->quantity,
            'stock' => $this->stock,
        ];
    }
}
