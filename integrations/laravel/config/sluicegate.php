<?php

use Sluicegate\Laravel\Jobs\ProcessHeartbeatJob;
use Sluicegate\Laravel\Jobs\ProcessMachineErrorJob;
use Sluicegate\Laravel\Jobs\ProcessTransactionJob;

return [

    /*
    |--------------------------------------------------------------------------
    | Redis
    |--------------------------------------------------------------------------
    |
    | "connection" is one of config/database.php. The package opens connections
    | of its own with its host and password, but without its key prefix: what
    | stands before the keys here is "key_prefix", which must be the same as
    | redis.key_prefix of the gateway. Where the gateway was given Laravel's
    | own prefix, write that here, e.g. "laravel_database_".
    |
    */

    'redis' => [
        'connection' => env('MQTT_REDIS_CONNECTION', 'default'),
        'key_prefix' => env('MQTT_REDIS_KEY_PREFIX', ''),
        // Seconds after which a server that says nothing is taken for away.
        'timeout' => 5,
    ],

    // The gateway's queues.incoming and queues.outgoing; the list of what no attempt could process.
    'queues' => [
        'incoming' => env('MQTT_INCOMING_QUEUE', 'mqtt_incoming_jobs'),
        'outgoing' => env('MQTT_OUTGOING_QUEUE', 'mqtt_outgoing_commands'),
        'dead_letters' => env('MQTT_DEAD_LETTERS', 'mqtt_job_dead_letters'),
        'dead_letters_max' => 100000,
    ],

    /*
    |--------------------------------------------------------------------------
    | mqtt:listen
    |--------------------------------------------------------------------------
    |
    | "instance" is the name of one running mqtt:listen, the same after a
    | restart: jobs that are under way stand in Redis under it. Each process
    | needs a name of its own; none: "laravel-" and the host's name.
    |
    */

    'listener' => [
        'instance' => env('MQTT_LISTENER_INSTANCE'),
        // Jobs that are taken at once, and done in one database transaction; 1: each in its own.
        'batch' => 100,
        // Seconds that one look at an empty list may wait in Redis.
        'block' => 2,
        // Seconds after which others take over from a process that does not renew its lease: longer than the longest
        // job or batch.
        'lease' => 30,
        // Attempts of a job that fails by itself; a database that is away is no attempt.
        'attempts' => 3,
        // Of the machine of a job that has no row: "create" one, or "dead-letter" the job.
        'unknown_machines' => 'create',
    ],

    // By the "type" of a job, which is the route's name in the gateway, unless it has a type of its own.
    'jobs' => [
        'heartbeat' => ProcessHeartbeatJob::class,
        'error' => ProcessMachineErrorJob::class,
        'transaction' => ProcessTransactionJob::class,
    ],

    /*
    |--------------------------------------------------------------------------
    | Queue
    |--------------------------------------------------------------------------
    |
    | Unless "connection" is set, mqtt:listen does the jobs itself, and a job
    | leaves Redis once the database has it. With it, they are dispatched to
    | that connection of config/queue.php, for its workers.
    |
    */

    'queue' => [
        'connection' => env('MQTT_QUEUE_CONNECTION'),
        'name' => env('MQTT_QUEUE'),
    ],

    /*
    |--------------------------------------------------------------------------
    | Database
    |--------------------------------------------------------------------------
    |
    | What the application calls its tables and columns. A column that is null
    | is not kept.
    |
    */

    'database' => [
        'connection' => env('MQTT_DB_CONNECTION'),
        'tables' => [
            'machines' => 'machines',
            'machine_logs' => 'machine_logs',
            'machine_slots' => 'machine_slots',
            'transactions' => 'transactions',
        ],
        'columns' => [
            'machines' => [
                'id' => 'id',
                'serial_no' => 'serial_no',
                'last_heard_at' => 'last_heard_at',
                'temperature' => 'temperature',
                'current_page' => 'current_page',
                'api_token_hash' => 'api_token_hash',
                'api_token_issued_at' => 'api_token_issued_at',
                'created_at' => 'created_at',
                'updated_at' => 'updated_at',
            ],
            'machine_logs' => [
                'machine_id' => 'machine_id',
                'level' => 'level',
                'code' => 'code',
                'message' => 'message',
                'slot_no' => 'slot_no',
                'payload' => 'payload',
                'logged_at' => 'logged_at',
                // Makes an error that is processed twice one row.
                'job_key' => 'job_key',
                'created_at' => 'created_at',
                'updated_at' => 'updated_at',
            ],
            'machine_slots' => [
                'machine_id' => 'machine_id',
                'slot_no' => 'slot_no',
                'stock' => 'stock',
                'updated_at' => 'updated_at',
            ],
            'transactions' => [
                'machine_id' => 'machine_id',
                'transaction_id' => 'transaction_id',
                'slot_no' => 'slot_no',
                'amount' => 'amount',
                'quantity' => 'quantity',
                'product_id' => 'product_id',
                'payment_type' => 'payment_type',
                'status' => 'status',
                'payload' => 'payload',
                'sold_at' => 'sold_at',
                'created_at' => 'created_at',
                'updated_at' => 'updated_at',
            ],
        ],
        // What a machine says ("status") of a sale that took nothing out of its slot.
        'keeps_stock' => [],
    ],

    'commands' => [
        // How an empty payload is written: "array" is [], as PHP has it, "object" is {}.
        'empty_payload' => 'array',
    ],

    /*
    |--------------------------------------------------------------------------
    | Machines' tokens
    |--------------------------------------------------------------------------
    |
    | Under "key" and the serial number stands the SHA-256 of a machine's
    | token: a "string", which the gateway's HTTP authentication reads, or a
    | "hash" with password_hash, which EMQX's own Redis authenticator reads.
    |
    */

    'tokens' => [
        'key' => 'machine_auth:',
        // The gateway's user name and client ids at the broker: a machine of that name could take its session over.
        'reserved' => ['sluicegate', 'sluicegate-commands'],
        'format' => env('MQTT_AUTH_FORMAT', 'string'),
    ],

];
