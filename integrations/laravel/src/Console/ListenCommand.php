<?php

namespace Sluicegate\Laravel\Console;

use Illuminate\Console\Command;
use InvalidArgumentException;
use Sluicegate\Laravel\Listener\Limits;
use Sluicegate\Laravel\Listener\Listener;

/** `php artisan mqtt:listen` */
class ListenCommand extends Command
{
    protected $signature = 'mqtt:listen
        {--instance= : The name of this process among several, the same after a restart}
        {--max-jobs=0 : End after so many jobs}
        {--max-time=0 : End after so many seconds}
        {--memory=128 : End above so many megabytes}
        {--stop-when-empty : End once there is no job}
        {--force : Work in maintenance mode, too}';

    protected $description = 'Take the machines\' jobs from Redis and do them';

    public function handle(Listener $listener): int
    {
        $limits = new Limits(
            $this->number('max-jobs'),
            $this->number('max-time'),
            $this->number('memory'),
            (bool) $this->option('stop-when-empty'),
            (bool) $this->option('force')
        );
        if (extension_loaded('pcntl')) {
            pcntl_async_signals(true);
            foreach ([SIGTERM, SIGINT, SIGQUIT] as $signal) {
                pcntl_signal($signal, fn () => $listener->stop());
            }
        }
        $instance = $listener->nameOf($this->option('instance'));
        $this->info("Listening as {$instance}.");
        $done = $listener->run($instance, $limits);
        $this->info("Ended after {$done} jobs.");

        return self::SUCCESS;
    }

    private function number(string $option): int
    {
        $value = $this->option($option);
        if (! ctype_digit((string) $value)) {
            throw new InvalidArgumentException("--{$option} is `{$value}`; it must be a whole number from 0");
        }

        return (int) $value;
    }
}
