-- a source where walferry's role owns everything
CREATE ROLE app LOGIN SUPERUSER REPLICATION PASSWORD :'verifier';
CREATE DATABASE :"db" OWNER app;
