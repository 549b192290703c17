<?php

namespace Sluicegate\Laravel\Exceptions;

use RuntimeException;

/** Redis does not answer, or refuses. Whether it did what it was asked is unknown. */
class RedisUnavailable extends RuntimeException
{
}
