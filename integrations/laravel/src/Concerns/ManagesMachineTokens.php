<?php

namespace Sluicegate\Laravel\Concerns;

use Illuminate\Support\Facades\App;
use Sluicegate\Laravel\Tokens\MachineTokens;

/**
 * For the controller that gives machines their tokens. Who may call it is the application's to say: put its routes
 * behind the application's own authentication and authorization.
 */
trait ManagesMachineTokens
{
    /** A machine's first token. It is shown once: answer it, and keep it nowhere. */
    protected function issueMachineToken(string $serialNo): string
    {
        return App::make(MachineTokens::class)->issue($serialNo);
    }

    /** A new one; the one before is void at once. */
    protected function rotateMachineToken(string $serialNo): string
    {
        return App::make(MachineTokens::class)->issue($serialNo);
    }

    /** None any more. */
    protected function revokeMachineToken(string $serialNo): void
    {
        App::make(MachineTokens::class)->revoke($serialNo);
    }
}
