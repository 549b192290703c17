<?php

namespace Sluicegate\Laravel\Tests\Support;

use RuntimeException;

/** A process that a test started, and ends. */
final class Child
{
    /** @var resource */
    private $process;

    private bool $ended = false;

    /**
     * @param array<int, string>    $command
     * @param array<string, string> $environment beside this process's own
     */
    public function __construct(private array $command, private string $log, array $environment = [], ?string $folder = null)
    {
        $files = [['file', '/dev/null', 'r'], ['file', $log, 'a'], ['file', $log, 'a']];
        $process = proc_open($command, $files, $pipes, $folder, $environment + getenv());
        if ($process === false) {
            throw new RuntimeException("{$command[0]} does not start");
        }
        $this->process = $process;
    }

    public function pid(): int
    {
        return proc_get_status($this->process)['pid'];
    }

    public function runs(): bool
    {
        return ! $this->ended && proc_get_status($this->process)['running'];
    }

    public function signal(int $signal): void
    {
        proc_terminate($this->process, $signal);
    }

    /** Ends it at once. */
    public function kill(): void
    {
        if (! $this->ended) {
            $this->signal(SIGKILL);
            $this->ended();
        }
    }

    /** Waits for its end. */
    public function ended(): void
    {
        $state = fn () => $this->log() . json_encode(proc_get_status($this->process));
        Wait::until('`' . basename($this->command[0]) . '` ends', fn () => ! $this->runs(), 120.0, $state);
        if (! $this->ended) {
            proc_close($this->process);
            $this->ended = true;
        }
    }

    public function log(): string
    {
        return is_file($this->log) ? (string) file_get_contents($this->log) : '';
    }
}
