<?php

// The framework as Composer installed it, else as Debian's php-laravel-framework has it.
$composer = __DIR__ . '/../vendor/autoload.php';
$debian = '/usr/share/php/Illuminate/autoload.php';
if (is_file($composer)) {
    require_once $composer;
} elseif (is_file($debian)) {
    // Debian's packages of that age speak of what PHP 8 has left behind.
    error_reporting(E_ALL & ~E_DEPRECATED);
    require_once $debian;
    spl_autoload_register(function (string $class): void {
        foreach (['Sluicegate\\Laravel\\Tests\\' => __DIR__, 'Sluicegate\\Laravel\\' => __DIR__ . '/../src'] as $prefix => $folder) {
            if (str_starts_with($class, $prefix)) {
                $file = $folder . '/' . str_replace('\\', '/', substr($class, strlen($prefix))) . '.php';
                if (is_file($file)) {
                    require_once $file;
                }

                return;
            }
        }
    });
} else {
    fwrite(STDERR, "No Laravel: `composer install`, or Debian's php-laravel-framework; `cargo xtask test` installs it.\n");
    exit(1);
}
putenv('SLUICEGATE_TEST_AUTOLOAD=' . __FILE__);
putenv('SLUICEGATE_TEST_PACKAGE=' . dirname(__DIR__));
