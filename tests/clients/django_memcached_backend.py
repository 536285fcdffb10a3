"""django.core.cache.backends.memcached.PyMemcacheCache: HOST PORT."""

from django_cache import main

main("django.core.cache.backends.memcached.PyMemcacheCache", memcached=True)
