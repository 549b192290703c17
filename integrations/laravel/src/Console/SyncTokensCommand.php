<?php

namespace Sluicegate\Laravel\Console;

use Illuminate\Console\Command;
use Sluicegate\Laravel\Tokens\MachineTokens;

/** `php artisan mqtt:sync-tokens` */
class SyncTokensCommand extends Command
{
    protected $signature = 'mqtt:sync-tokens';

    protected $description = 'Write all machines\' tokens to Redis anew, in the format of the settings';

    public function handle(MachineTokens $tokens): int
    {
        [$written, $refused] = $tokens->sync();
        foreach ($refused as $serialNo => $reason) {
            $this->error("{$serialNo}: {$reason}");
        }
        $this->info("{$written} machines' tokens are in Redis.");

        return $refused ? self::FAILURE : self::SUCCESS;
    }
}
