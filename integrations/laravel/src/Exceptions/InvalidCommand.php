<?php

namespace Sluicegate\Laravel\Exceptions;

use InvalidArgumentException;

/** A command, or a machine's serial number, that the gateway or the broker would refuse. */
class InvalidCommand extends InvalidArgumentException
{
}
