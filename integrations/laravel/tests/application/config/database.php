<?php

return [
    'default' => 'mysql',
    'connections' => [
        'mysql' => [
            'driver' => 'mysql',
            'unix_socket' => env('DB_SOCKET'),
            'database' => env('DB_DATABASE', 'laravel'),
            'username' => 'root',
            'password' => '',
            'charset' => 'utf8mb4',
            'collation' => 'utf8mb4_unicode_ci',
            'prefix' => '',
            'strict' => true,
        ],
    ],
    'migrations' => 'migrations',
    'redis' => [
        'client' => env('REDIS_CLIENT', 'phpredis'),
        // Laravel's own default, and what an application may have beside it: all of it must not reach the gateway's keys.
        'options' => [
            'cluster' => 'redis',
            'prefix' => 'laravel_database_',
            'serializer' => 1,
        ],
        'default' => [
            'host' => '127.0.0.1',
            'port' => env('REDIS_PORT'),
            'database' => 0,
        ],
    ],
];
