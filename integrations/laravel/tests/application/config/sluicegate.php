<?php

// As published, but for a lease that a test may shorten.
$settings = require getenv('SLUICEGATE_TEST_PACKAGE') . '/config/sluicegate.php';
$settings['listener']['lease'] = (int) env('SLUICEGATE_TEST_LEASE', 30);

return $settings;
