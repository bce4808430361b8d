<?php
# Settings of a farm of small wikis in one code tree, as wiki farms do it:
# every maintenance script takes --wiki=NAME, which MediaWiki has made the
# constant MW_DB by the time it reads this file (in 1.39:
# maintenance/includes/MaintenanceRunner.php, defineSettings).
#
# run.sh says where things are: WIKI_DATA is the folder of the SQLite databases,
# WIKI_CACHE a folder for what MediaWiki compiles.

if ( !defined( 'MEDIAWIKI' ) ) {
	exit( 1 );
}

$wgDBtype = 'sqlite';
$wgSQLiteDataDir = getenv( 'WIKI_DATA' );
$wgDBname = defined( 'MW_DB' ) ? MW_DB : 'w01';

# SQLite makes a database that is not there; a wiki that is not there is a typo.
if ( !is_file( "$wgSQLiteDataDir/$wgDBname.sqlite" ) ) {
	fwrite( STDERR, "There is no wiki \"$wgDBname\" in $wgSQLiteDataDir.\n" );
	exit( 1 );
}

$wgSitename = $wgDBname;
$wgServer = 'http://localhost';
$wgScriptPath = '';
$wgSecretKey = str_repeat( '0', 64 ); # nobody logs in

# No memcached here, and scripts of 30 wikis do not need one. The compiled
# messages are the same for all of them.
$wgMainCacheType = CACHE_NONE;
$wgMessageCacheType = CACHE_NONE;
$wgParserCacheType = CACHE_NONE;
$wgLocalisationCacheConf['store'] = 'array';
$wgLocalisationCacheConf['storeDirectory'] = getenv( 'WIKI_CACHE' );
