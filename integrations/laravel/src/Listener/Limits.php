<?php

namespace Sluicegate\Laravel\Listener;

/** When a listener ends by itself, as with queue:work. */
final class Limits
{
    /**
     * @param int  $jobs          ends after so many; 0: never for that
     * @param int  $seconds       ends after so long; 0: never for that
     * @param int  $memory        ends above so many MiB
     * @param bool $untilEmpty    ends once there is no job
     * @param bool $inMaintenance works while the application is down for maintenance
     */
    public function __construct(
        public int $jobs = 0,
        public int $seconds = 0,
        public int $memory = 128,
        public bool $untilEmpty = false,
        public bool $inMaintenance = false
    ) {
    }
}
