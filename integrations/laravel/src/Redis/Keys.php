<?php

namespace Sluicegate\Laravel\Redis;

/**
 * Every Redis key of the package, with the prefix that the gateway has, too. What is changed in one step must lie in
 * one slot of a cluster, so the braces hold the list's whole key.
 */
final class Keys
{
    public string $incoming;

    public string $outgoing;

    public string $deadLetters;

    /** The names of all instances that take from the list, whatever they are written in. */
    public string $instances;

    /** How often the job was at the head of what stood when its listener had died. */
    public string $deaths;

    private string $tokens;

    /**
     * @param array<string, mixed> $settings of config/sluicegate.php
     */
    public function __construct(array $settings)
    {
        $prefix = (string) $settings['redis']['key_prefix'];
        $this->incoming = $prefix . $settings['queues']['incoming'];
        $this->outgoing = $prefix . $settings['queues']['outgoing'];
        $this->deadLetters = $prefix . $settings['queues']['dead_letters'];
        $this->instances = "{{$this->incoming}}:instances";
        $this->deaths = "{{$this->incoming}}:deaths";
        $this->tokens = $prefix . $settings['tokens']['key'];
    }

    /** What an instance has under way. */
    public function processing(string $instance): string
    {
        return "{{$this->incoming}}:processing:{$instance}";
    }

    /** Its lease. */
    public function lease(string $instance): string
    {
        return "{{$this->incoming}}:lease:{$instance}";
    }

    /** How often it has started. */
    public function starts(string $instance): string
    {
        return "{{$this->incoming}}:starts:{$instance}";
    }

    /** What the broker reads of a machine's token. */
    public function token(string $serialNo): string
    {
        return $this->tokens . $serialNo;
    }
}
