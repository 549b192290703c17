<?php

namespace Sluicegate\Laravel\Contracts;

/**
 * A job that may be done with others in one database transaction, which is rolled back and done again one by one where
 * any of them fails: so it changes nothing but rows of the package's connection, tells others only through
 * Tables::afterCommit(), and throws a MalformedMessage before its first change.
 */
interface WorksInBatches
{
}
