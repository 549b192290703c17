<?php

namespace Sluicegate\Laravel\Exceptions;

use UnexpectedValueException;

/** A message that no attempt can process: it goes to the dead letters at once. */
class MalformedMessage extends UnexpectedValueException
{
}
