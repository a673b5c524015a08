"""People's passwords: made of words that can be read out over the telephone, kept by argon2."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import argon2

_SEA: Final = """
    anchor ballast barge basin bay beach beacon beam berth bilge billow blenny boat bollard boom bosun bow
    bowline breaker bream breeze bridge brig brine bunk buoy cabin cable canal canoe canvas cape capstan captain
    cargo catboat causeway channel chart clam cleat cliff clipper clove coast cockle cod coral cove crab crest
    crew current cutter dab davit deck delta diver dock dogfish dolphin dory drift dune ebb eddy eel eider
    estuary fathom fender ferry fin fjord fleet float flotsam flounder flume foam fog foghorn frigate funnel
    gale galleon galley gangway gannet garfish gravel grebe gulf gull gunwale haddock hake halibut hammock
    harbour harpoon hatch haven helm heron herring hoist horizon hull inlet island islet isthmus jetty jib kayak
    keel kelp ketch krill lagoon lanyard launch ledge lee leeward levee lighter limpet ling lobster loch
    mackerel mainsail manatee marina mariner marlin marsh mast mist moor mudflat mullet mussel narwhal nautilus
    neap oar ocean offing orca osprey otter oyster packet paddle painter pebble pelican penguin petrel pier pike
    pilot plaice plank plankton plover pollack pontoon porpoise prawn prow puffin quay raft reef regatta rigging
    ripple roach rope rudder sail salmon sandbar sardine schooner scull seal seaweed sextant shale shark shell
    shoal shore shrimp skate skerry skiff skipper slipway sloop sole sonar spar spit spray spume squall squid
    starfish stern stingray strait strand sturgeon surf surge swan swell tack tanker tarpon teal tender tern
    tide tiller topsail trawler trench trident trout tug tuna turbot turtle undertow vessel voyage wader wake
    walrus warp wave whale wharf whelk winch windward yacht yawl
"""
WORDS: Final = tuple(_SEA.split())
"""256 of the sea: 8 bits each."""
PASSWORD_WORDS: Final = 4
"""With two digits 38 bits: by argon2, at 50 ms a guess, that is centuries of a processor."""
HASHES_AT_ONCE_MAX: Final = 2
"""Each takes 64 MB and a core for its 50 ms: sign-ins wait for each other, and take neither from the data."""

_hasher: Final = argon2.PasswordHasher()
_threads: Final = ThreadPoolExecutor(HASHES_AT_ONCE_MAX, thread_name_prefix="argon2")


def new_password(words: int = PASSWORD_WORDS) -> str:
    """Such as gull-harbour-41, of more words. Fewer than PASSWORD_WORDS are for a machine that nobody else reaches."""
    number = 10 + secrets.randbelow(90)
    return "-".join((*(secrets.choice(WORDS) for _ in range(words)), str(number)))


async def hashed(password: str) -> str:
    """The argon2 text to keep."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _hasher.hash, password)


async def matches(password: str, kept: str | None) -> bool:
    """Whether it is the password that was kept. None (nobody has that name) takes as long as a wrong one."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _matches, password, kept)


def _matches(password: str, kept: str | None) -> bool:
    if kept is None:
        _hasher.hash(password)
        return False
    try:
        return _hasher.verify(kept, password)
    except argon2.exceptions.VerificationError:
        return False
